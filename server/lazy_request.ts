import { ProtocolError } from "../wire/protocol_error.ts";
import {
  acceptsProxy,
  type Inspect,
  inspectNatively,
  requestGetter,
  setGuard,
} from "../io/private_fields.ts";

/** The parts of a request, each created on first need. */
export interface RequestParts {
  readonly method: string;
  /** The URL, normalized as that of a `Request`. */
  readonly url: string;
  /** Aborts when the web server aborts the request or closes the connection. */
  readonly signal: AbortSignal;
  /** The body as a stream, or null if the request has none. */
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  /** Whether the body was read from or cancelled. */
  readonly bodyUsed: boolean;
  /** Creates the headers. */
  createHeaders(): Headers;
  /** Reads the whole body. Returns null if there is none, or if its stream exists. */
  collectBody(): Promise<Uint8Array<ArrayBuffer>> | null;
}

/**
 * Creates a `Request` whose parts are created when the app first reads them. Creating a real Request costs more than
 * the rest of a small request, and most apps read only the method, the URL and some headers.
 *
 * The result is a proxy of an object that inherits from `Request.prototype`. A property is looked up first among
 * those that the app has defined on the request, then among those that it has changed on the prototype, then in the
 * parts.
 */
export function createLazyRequest(parts: RequestParts): Request {
  supported ??= acceptsProxy();
  const lazy = new LazyRequest(parts);
  return supported ? new Proxy(new Target(lazy), lazy) : createReal(lazy);
}

/**
 * Creates the real Request at once.
 *
 * @throws {ProtocolError} If the runtime changes the method: Bun makes one that it does not know GET.
 */
function createReal({ request, parts }: LazyRequest): Request {
  if (request.method === parts.method) return request;
  throw new ProtocolError(
    `Cannot create request: ${navigator.userAgent} has no method ${parts.method}`,
    501,
  );
}

/** Whether this version of Deno accepts a proxy as a Request, or null before the test. */
let supported: boolean | null = null;

const PROTOTYPE = Request.prototype;
/** The runtime's own class: an app may replace the global one. */
const { Response } = globalThis;

/** The key under which the proxy's target has its LazyRequest. */
const LAZY = Symbol("lazy");
/** The method that `console.log()` calls, with the target of a proxy as `this`. */
const INSPECT = Symbol.for("Deno.customInspect");

/** The target of the proxy. A function, as the prototype of a class cannot be replaced. */
const Target = function (this: Record<symbol, unknown>, lazy: LazyRequest) {
  this[LAZY] = lazy;
  this[INSPECT] = inspectTarget;
} as unknown as new (lazy: LazyRequest) => Request;
Target.prototype = PROTOTYPE;

function inspectTarget(
  this: Request & { [LAZY]: LazyRequest },
  inspect: Inspect,
  options: object,
): unknown {
  const lazy = this[LAZY];
  return inspectNatively(new Proxy(this, lazy), inspect, options) ?? inspect(lazy.request, options);
}

type Accessor = "url" | "method" | "headers" | "signal" | "body" | "bodyUsed";

/** Deno's getters of `Request.prototype`, which a lazy request replaces unless the app has changed them. */
const GETTERS: Readonly<Record<Accessor, () => unknown>> = {
  url: requestGetter("url"),
  method: requestGetter("method"),
  headers: requestGetter("headers"),
  signal: requestGetter("signal"),
  body: requestGetter("body"),
  bodyUsed: requestGetter("bodyUsed"),
};

/** The body of a Request in place of one that was read, or that a reader has locked. */
const USED = new Uint8Array();

class LazyRequest implements ProxyHandler<Request> {
  readonly parts: RequestParts;
  /** Whether the body was collected without the real Request. */
  collected = false;
  /** Whether the app has defined a property or replaced the prototype. */
  #defined = false;
  #headers: Headers | null = null;
  #body: ReadableStream<Uint8Array<ArrayBuffer>> | null | undefined;
  #request: Request | null = null;
  /** Whether the body had been read from when the real Request was created, which then has none of it. */
  #taken = false;
  /** A Request in place of the real one, which cannot be created while a reader has locked the body. */
  #locked: Request | null = null;

  constructor(parts: RequestParts) {
    this.parts = parts;
  }

  get(target: Request, key: string | symbol, receiver: unknown): unknown {
    if (typeof key === "symbol") {
      // Deno keeps the fields of a Request under symbols of its own.
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
      case "formData":
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

  /** Creates headers without the real Request if they can be immutable: else changes to one would miss the other. */
  #createHeaders(): Headers {
    const headers = this.parts.createHeaders();
    return setGuard(headers, "immutable") ? headers : this.request.headers;
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    if (this.collected) return this.request.body;
    // Not cached, as clone() replaces the body of the Request.
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
    if (!taken && this.body?.locked === true) return this.#locked ??= this.#create(USED);
    this.#taken = taken;
    return this.#request = this.#create(taken ? USED : this.body);
  }

  /** Creates a Request. A body that was read or is locked cannot be given to it: USED, once read, stands for that. */
  #create(body: BodyInit | null): Request {
    const { url, method, signal } = this.parts;
    // Not stored if the app has not read them yet: it then gets the Request's own.
    const headers = this.#headers ?? this.parts.createHeaders();
    const init = { method, headers, body, signal, duplex: "half" };
    const request = new Request(url, init);
    setGuard(GETTERS.headers.call(request) as Headers, "immutable");
    if (body === USED) request.bytes().catch(() => {});
    return request;
  }

  /** Reads the whole body, or returns null if the app has its stream or the real Request. */
  collect(): Promise<Uint8Array<ArrayBuffer>> | null {
    if (this.#request !== null || this.#body !== undefined || this.collected) return null;
    const body = this.parts.collectBody();
    this.collected = body !== null;
    return body;
  }
}

/** Returns whether a getter of `Request.prototype` is Deno's own. */
function isUnchanged(key: Accessor): boolean {
  return Reflect.getOwnPropertyDescriptor(PROTOTYPE, key)?.get === GETTERS[key];
}

function collect(request: Request): Promise<Uint8Array<ArrayBuffer>> | undefined | null {
  return (request as Request & { [LAZY]?: LazyRequest })[LAZY]?.collect();
}

/** The methods of `Request.prototype` before the app can change them. */
const METHODS = {
  bytes: PROTOTYPE.bytes,
  arrayBuffer: PROTOTYPE.arrayBuffer,
  text: PROTOTYPE.text,
  json: PROTOTYPE.json,
  formData: PROTOTYPE.formData,
};

/** Methods that read the whole body, without a real Request or a stream. */
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
  /** By a response, which reads its own body as a request does, but from memory: a stream costs twice as much. */
  formData(this: Request): Promise<FormData> {
    const bytes = collect(this);
    if (bytes === null || bytes === undefined) return METHODS.formData.call(this);
    const type = this.headers.get("content-type");
    return bytes.then((body) => {
      const response = new Response(body, {
        headers: type === null ? {} : { "content-type": type },
      });
      // The response has a copy. This one would be in memory until a garbage collection.
      body.buffer.transfer(0);
      return response.formData();
    });
  },
};
