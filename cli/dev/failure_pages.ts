import { AsyncLocalStorage } from "node:async_hooks";
import type { Handler, HandlerInfo } from "../../bridge/app.ts";
import { debugPage } from "../../debug/debug_page.ts";
import { logLine } from "../../io/log.ts";
import { reasonPhrase } from "../../wire/cgi.ts";
import { isLoopback } from "../../wire/ip_address.ts";

/** How long to wait for the first line of stderr of a script that failed, and for the others, in milliseconds. */
const FIRST_LINE = 1000;
const OTHER_LINES = 50;

/** Shows what a gateway logs for a request in place of an error that says nothing. */
export class FailurePages {
  /** What is logged for the current request. */
  #requestLog = new AsyncLocalStorage<RequestLog>();

  /** The option `log` of the gateway. */
  readonly log = (line: string): void => {
    logLine(line);
    this.#requestLog.getStore()?.add(line);
  };

  /**
   * Calls the gateway.
   *
   * @param late Whether a program's stderr may come after its failure, as that of a process does.
   */
  async respond(
    gateway: Handler,
    request: Request,
    info: HandlerInfo,
    late: boolean,
  ): Promise<Response> {
    const log = new RequestLog();
    const response = await this.#requestLog.run(log, () => gateway(request, info));
    const isHere = isLoopback(info.remoteAddr.hostname);
    if (!isHere || log.lines.length === 0 || !await saysNothing(response)) return response;
    if (late && response.status === 502) await log.hasStderr();
    const { body, headers } = await debugPage(new Error(log.lines.join("\n")), request, info);
    return new Response(body, { status: response.status, headers });
  }
}

/** What is logged for a request: the messages of the gateway, and what the script writes to stderr. */
class RequestLog {
  readonly lines: string[] = [];
  #stderr = Promise.withResolvers<void>();

  add(line: string): void {
    this.lines.push(line);
    if (!line.startsWith("Cannot ")) this.#stderr.resolve();
  }

  /** Waits a little for what a script that failed has written. */
  async hasStderr(): Promise<void> {
    const timer = setTimeout(this.#stderr.resolve, FIRST_LINE);
    await this.#stderr.promise;
    clearTimeout(timer);
    await new Promise((resolve) => setTimeout(resolve, OTHER_LINES));
  }
}

/** Returns whether a response is that of the gateway itself, or an error without a body, as PHP's without display_errors. */
async function saysNothing(response: Response): Promise<boolean> {
  const { status, headers } = response;
  if (![403, 500, 502, 504].includes(status)) return false;
  if (status === 500 && await isEmpty(response)) return true;
  if (headers.get("content-type") !== "text/plain;charset=UTF-8") return false;
  return await response.clone().text() === `${status} ${reasonPhrase(status)}\n`;
}

/** Waits for the first part of a body only, as the rest may take long. */
async function isEmpty(response: Response): Promise<boolean> {
  const reader = response.clone().body?.getReader();
  if (reader === undefined) return true;
  while (true) {
    const { done, value } = await reader.read();
    if (done) return true;
    if (value.length === 0) continue;
    reader.cancel().catch(() => {});
    return false;
  }
}
