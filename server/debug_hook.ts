import type { HandlerInfo } from "../bridge/app.ts";

/** Creates the page that the option `debug` shows. */
export interface DebugHook {
  /** Loads debug/debug_page.ts. */
  load(): Promise<{
    debugPage(
      error: unknown,
      request: Request | undefined,
      info: HandlerInfo,
      address: Deno.Addr | undefined,
    ): Promise<Response>;
  }>;
  /** The address that the server listens on, if it does. */
  address?: Deno.Addr;
}
