import type { App, AppObject, Handler, HandlerInfo } from "../bridge/app.ts";
import { Progress } from "../io/progress.ts";
import { type Ticked, Ticker, tickFor } from "../io/ticker.ts";

/** Logs requests while they run, once they have taken long, for the option `slowLog`. */
export class SlowLog {
  #limit: number;
  #running: Ticker<SlowRequest>;

  /** @param limit How long a request may run before that, in milliseconds. */
  constructor(limit: number) {
    this.#limit = limit;
    this.#running = new Ticker(tickFor(limit));
  }

  /** Returns an app that does the same, whose requests are watched. */
  watch(app: App): AppObject {
    if (typeof app === "function") return { fetch: this.#watch(app) };
    const { authorize, filter } = app;
    return {
      fetch: this.#watch((request, info) => app.fetch(request, info)),
      authorize: authorize && this.#watch((request, info) => app.authorize!(request, info)),
      filter: filter && this.#watch((request, info) => app.filter!(request, info)),
    };
  }

  #watch<Info extends HandlerInfo>(
    handle: (request: Request, info: Info) => ReturnType<Handler>,
  ): (request: Request, info: Info) => ReturnType<Handler> {
    return (request, info) => {
      const running = new SlowRequest(request, info, this.#limit);
      this.#running.add(running);
      const end = () => this.#running.delete(running);
      info.completed.then(end, end);
      const response = handle(request, info);
      if (response instanceof Promise) return response.finally(() => running.responds());
      running.responds();
      return response;
    };
  }

  /** Stops once a server has. */
  closeAfter({ finished }: { finished: Promise<void> }): void {
    const close = () => this.#running.close();
    finished.then(close, close);
  }
}

/** Returns a slow log, or undefined without a limit. */
export function openSlowLog(limit = Infinity): SlowLog | undefined {
  return limit === Infinity ? undefined : new SlowLog(limit);
}

/** A request that runs. */
class SlowRequest implements Ticked {
  place = -1;
  #request: Request;
  #info: HandlerInfo;
  #limit: number;
  #startedAt = performance.now();
  #running = new Progress();
  /** Responding: the app has responded, and its response is being sent. Logged: its line is written. */
  #phase: "handling" | "responding" | "logged" = "handling";

  constructor(request: Request, info: HandlerInfo, limit: number) {
    this.#request = request;
    this.#info = info;
    this.#limit = limit;
  }

  /** Records that the app has responded. */
  responds(): void {
    if (this.#phase === "handling") this.#phase = "responding";
  }

  check(now: number): void {
    if (this.#phase === "logged" || this.#running.elapsed(now) < this.#limit) return;
    const why = this.#phase === "responding"
      ? "its response is being sent"
      : "the app has not responded";
    this.#phase = "logged";
    const { method, url } = this.#request;
    const seconds = ((performance.now() - this.#startedAt) / 1000).toFixed(1);
    // Without the query, which may have secrets.
    this.#info.log(
      `Slow request ${this.#info.requestId}: ${method} ${
        new URL(url).pathname
      } has run for ${seconds} s, and ${why}`,
    );
  }
}
