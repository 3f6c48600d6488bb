import { makeImmutable } from "./request.ts";

/** What a request is made of, once it must be. */
export interface RequestParts {
  readonly method: string;
  /** Normalized, as `Request` would have it. */
  readonly url: string;
  /** Aborts when the request is called off. */
  readonly signal: AbortSignal;
  /** The body, if there is one. */
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  /** Whether somebody has begun to read it. */
  readonly bodyUsed: boolean;
  /** Makes the headers. */
  createHeaders(): Headers;
  /** The body all at once; null if there is none, or it has been asked for as a stream. */
  collectBody(): Promise<Uint8Array<ArrayBuffer>> | null;
}

/**
 * Creates a `Request` whose parts are created when the app first reads them. To create a Request takes longer than all
 * else that is done for a small request, and most apps read the method, the URL and some headers.
 *
 * It is a proxy of an object that inherits from `Request.prototype`. What the app defines on the request becomes a
 * property of that object, and comes first; then comes what the app has changed on the prototype; then the parts.
 */
export function createLazyRequest(parts: RequestParts): Request {
  supported ??= isSupported();
  const lazy = new LazyRequest(parts);
  return supported ? new Proxy(new Target(lazy), lazy) : lazy.request;
}

/** Whether this version of Deno accepts a proxy as a Request; null until it is tested. */
let supported: boolean | null = null;

/** Tests it without creating a Request, which a CGI script may never need. */
function isSupported(): boolean {
  // A Request keeps its URL under a symbol: the getter reads the brand and that, and both times gets the key.
  const proxy = new Proxy(Object.create(PROTOTYPE), { get: (_target, key) => key });
  try {
    return typeof GETTERS.url.call(proxy) === "symbol";
  } catch {
    return false;
  }
}

const PROTOTYPE = Request.prototype;

/** Leads from the proxy to what is behind it. */
const LAZY = Symbol("lazy");
/** What `console.log()` calls, which looks at the target of a proxy. */
const INSPECT = Symbol.for("Deno.customInspect");
/** Shows a Request; not public. */
const NATIVE_INSPECT = Symbol.for("Deno.privateCustomInspect");

/** The target of the proxy. It is no class, as those cannot share the prototype of another. */
const Target = function (this: Record<symbol, unknown>, lazy: LazyRequest) {
  this[LAZY] = lazy;
  this[INSPECT] = inspectTarget;
} as unknown as new (lazy: LazyRequest) => Request;
Target.prototype = PROTOTYPE;

function inspectTarget(
  this: Request & { [LAZY]: LazyRequest },
  inspect: typeof Deno.inspect,
  options: Deno.InspectOptions,
): unknown {
  const lazy = this[LAZY];
  const show = Reflect.get(PROTOTYPE, NATIVE_INSPECT);
  return typeof show === "function"
    ? show.call(new Proxy(this, lazy), inspect, options)
    : inspect(lazy.request, options);
}

type Accessor = "url" | "method" | "headers" | "signal" | "body" | "bodyUsed";

function getterOf(key: Accessor): () => unknown {
  return Reflect.getOwnPropertyDescriptor(PROTOTYPE, key)!.get!;
}

/** The getters of `Request.prototype` that a lazy request takes the place of, unless the app has changed them. */
const GETTERS: Readonly<Record<Accessor, () => unknown>> = {
  url: getterOf("url"),
  method: getterOf("method"),
  headers: getterOf("headers"),
  signal: getterOf("signal"),
  body: getterOf("body"),
  bodyUsed: getterOf("bodyUsed"),
};

/** What stands for a body that somebody has. */
const USED = new Uint8Array();

class LazyRequest implements ProxyHandler<Request> {
  readonly parts: RequestParts;
  /** Whether the body has been taken without the Request. */
  collected = false;
  /** Whether the app has defined a property, or set another prototype. */
  #defined = false;
  #headers: Headers | null = null;
  #body: ReadableStream<Uint8Array<ArrayBuffer>> | null | undefined;
  #request: Request | null = null;
  /** Whether the Request was made without the body, as that had been read from. */
  #taken = false;
  /** Stands for the Request as long as a reader has the body. */
  #locked: Request | null = null;

  constructor(parts: RequestParts) {
    this.parts = parts;
  }

  get(target: Request, key: string | symbol, receiver: unknown): unknown {
    if (typeof key === "symbol") {
      // The fields of a Request are symbols that only Deno itself knows.
      return key in target ? Reflect.get(target, key, receiver) : Reflect.get(this.request, key);
    }
    if (
      this.#defined && (Object.hasOwn(target, key) || Reflect.getPrototypeOf(target) !== PROTOTYPE)
    ) {
      return Reflect.get(target, key, receiver);
    }
    switch (key) {
      case "url":
        if (isUnchanged(key)) return this.parts.url;
        break;
      case "method":
        if (isUnchanged(key)) return this.parts.method;
        break;
      case "headers":
        if (isUnchanged(key)) return this.headers;
        break;
      case "signal":
        if (isUnchanged(key)) return this.parts.signal;
        break;
      case "body":
        if (isUnchanged(key)) return this.body;
        break;
      case "bodyUsed":
        if (isUnchanged(key)) return this.bodyUsed;
        break;
      case "bytes":
      case "arrayBuffer":
      case "text":
      case "json":
        if (PROTOTYPE[key] === METHODS[key]) return COLLECTORS[key];
        break;
    }
    return Reflect.get(target, key, receiver);
  }

  defineProperty(target: Request, key: string | symbol, descriptor: PropertyDescriptor): boolean {
    this.#defined = true;
    return Reflect.defineProperty(target, key, descriptor);
  }

  setPrototypeOf(target: Request, prototype: object | null): boolean {
    this.#defined = true;
    return Reflect.setPrototypeOf(target, prototype);
  }

  set(target: Request, key: string | symbol, value: unknown, receiver: unknown): boolean {
    const request = this.#request ?? this.#locked;
    return typeof key === "symbol" && request !== null && Object.hasOwn(request, key)
      ? Reflect.set(request, key, value)
      : Reflect.set(target, key, value, receiver);
  }

  get headers(): Headers {
    return this.#headers ??= this.#request?.headers ?? this.#createHeaders();
  }

  /** Headers apart from the Request's can only be the same if nobody changes them. */
  #createHeaders(): Headers {
    const headers = this.parts.createHeaders();
    return makeImmutable(headers) ? headers : this.request.headers;
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    if (this.collected) return this.request.body;
    // To clone a Request changes its body.
    if (this.#request !== null && !this.#taken) return this.#request.body;
    if (this.#body === undefined) this.#body = this.parts.body;
    return this.#body;
  }

  get bodyUsed(): boolean {
    if (this.collected) return true;
    return this.#request === null || this.#taken ? this.parts.bodyUsed : this.#request.bodyUsed;
  }

  get request(): Request {
    if (this.#request !== null) return this.#request;
    const taken = this.bodyUsed;
    if (!taken && this.body?.locked === true) return this.#locked ??= this.#make(USED);
    this.#taken = taken;
    return this.#request = this.#make(taken ? USED : this.body);
  }

  /** No Request can be made with a body that is being read: then it gets one that is used as well. */
  #make(body: BodyInit | null): Request {
    const { url, method, signal } = this.parts;
    // Not kept if nobody has asked for them: then the Request's own will be the ones.
    const headers = this.#headers ?? this.parts.createHeaders();
    const request = new Request(url, { method, headers, body, signal });
    makeImmutable(GETTERS.headers.call(request) as Headers);
    if (body === USED) request.bytes().catch(() => {});
    return request;
  }

  /** Takes the body, if nobody has asked for it yet. */
  collect(): Promise<Uint8Array<ArrayBuffer>> | null {
    if (this.#request !== null || this.#body !== undefined || this.collected) return null;
    const body = this.parts.collectBody();
    this.collected = body !== null;
    return body;
  }
}

/** Whether a getter of `Request.prototype` is the one that Deno made. */
function isUnchanged(key: Accessor): boolean {
  return Reflect.getOwnPropertyDescriptor(PROTOTYPE, key)?.get === GETTERS[key];
}

function collect(request: Request): Promise<Uint8Array<ArrayBuffer>> | undefined | null {
  return (request as Request & { [LAZY]?: LazyRequest })[LAZY]?.collect();
}

/** What `Request.prototype` has before the app can change it. */
const METHODS = {
  bytes: PROTOTYPE.bytes,
  arrayBuffer: PROTOTYPE.arrayBuffer,
  text: PROTOTYPE.text,
  json: PROTOTYPE.json,
};

/** Methods that take the body whole, which needs neither a Request nor a stream. */
const COLLECTORS = {
  bytes(this: Request): Promise<Uint8Array<ArrayBuffer>> {
    return collect(this) ?? METHODS.bytes.call(this);
  },
  arrayBuffer(this: Request): Promise<ArrayBuffer> {
    const bytes = collect(this);
    return bytes ? bytes.then(({ buffer }) => buffer) : METHODS.arrayBuffer.call(this);
  },
  text(this: Request): Promise<string> {
    return collect(this)?.then((bytes) => new TextDecoder().decode(bytes)) ??
      METHODS.text.call(this);
  },
  json(this: Request): Promise<unknown> {
    return collect(this)?.then((bytes) => JSON.parse(new TextDecoder().decode(bytes))) ??
      METHODS.json.call(this);
  },
};
