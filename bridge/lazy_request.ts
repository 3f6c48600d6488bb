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
 * A `Request` that is made when something is asked of it that its parts do not tell. To make one takes longer than
 * all else that is done for a small request, and most apps ask for the method, the URL and some headers.
 *
 * A proxy, so that it is a `Request` in every respect: `instanceof`, `new Request(request)`, `fetch(request)`, `clone()`.
 */
export function createLazyRequest(parts: RequestParts): Request {
  return new Proxy(new LazyRequest(parts), TRAPS) as unknown as Request;
}

/** What stands for a body that somebody has. */
const USED = new Uint8Array();

class LazyRequest {
  readonly parts: RequestParts;
  /** Whether the body has been taken without the Request. */
  collected = false;
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

  get headers(): Headers {
    return this.#headers ??= this.#request?.headers ?? this.parts.createHeaders();
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

  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](inspect: typeof Deno.inspect, options: Deno.InspectOptions) {
    return inspect(this.request, options);
  }
}

/** What a lazy request answers to with itself. */
const TARGET = Symbol("target");

function collect(request: Request): Promise<Uint8Array<ArrayBuffer>> | undefined | null {
  return (request as Request & { [TARGET]?: LazyRequest })[TARGET]?.collect();
}

/** Methods that take the body whole, which needs neither a Request nor a stream. */
const COLLECTORS = {
  bytes(this: Request): Promise<Uint8Array<ArrayBuffer>> {
    return collect(this) ?? Request.prototype.bytes.call(this);
  },
  arrayBuffer(this: Request): Promise<ArrayBuffer> {
    const bytes = collect(this);
    return bytes ? bytes.then(({ buffer }) => buffer) : Request.prototype.arrayBuffer.call(this);
  },
  text(this: Request): Promise<string> {
    return collect(this)?.then((bytes) => new TextDecoder().decode(bytes)) ??
      Request.prototype.text.call(this);
  },
  json(this: Request): Promise<unknown> {
    return collect(this)?.then((bytes) => JSON.parse(new TextDecoder().decode(bytes))) ??
      Request.prototype.json.call(this);
  },
};

const TRAPS: ProxyHandler<LazyRequest> = {
  get(target, key) {
    if (key === "url") return target.parts.url;
    if (key === "method") return target.parts.method;
    if (key === "headers") return target.headers;
    if (key === "signal") return target.parts.signal;
    if (key === TARGET) return target;
    if (key === "body") return target.body;
    if (key === "bodyUsed") return target.bodyUsed;
    if (Object.hasOwn(COLLECTORS, key)) return COLLECTORS[key as keyof typeof COLLECTORS];
    return Reflect.get(target.request, key);
  },
  set: (target, key, value) => Reflect.set(target.request, key, value),
  has: (target, key) => Reflect.has(target.request, key),
  deleteProperty: (target, key) => Reflect.deleteProperty(target.request, key),
  defineProperty: (target, key, descriptor) =>
    Reflect.defineProperty(target.request, key, { ...descriptor, configurable: true }),
  ownKeys: (target) => Reflect.ownKeys(target.request),
  getOwnPropertyDescriptor(target, key) {
    const descriptor = Reflect.getOwnPropertyDescriptor(target.request, key);
    // A proxy may only show what its target has not as configurable.
    return descriptor && { ...descriptor, configurable: true };
  },
  getPrototypeOf: () => Request.prototype,
};
