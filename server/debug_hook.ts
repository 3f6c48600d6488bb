import type { HandlerInfo } from "../bridge/app.ts";
import type { Addr } from "../io/addr.ts";

/** Creates the page that the option `debug` shows. */
export interface DebugHook {
  /** Loads debug/debug_page.ts. */
  load(): Promise<{
    debugPage(
      error: unknown,
      request: Request | undefined,
      info: HandlerInfo,
      address: Addr | undefined,
    ): Promise<Response>;
  }>;
  /** The address that the server listens on, if it does. */
  address?: Addr;
}
