/**
 * The debug page behind `dev`: it is for this machine alone, and reloads itself once the app has changed.
 *
 * @module
 */

import type { HandlerInfo } from "../bridge/app.ts";

/** What the page reads of `info`. */
export type DebugInfo = Pick<HandlerInfo, "protocol" | "variables" | "remoteAddr">;

/** The path at which `dev` responds once the app has another version than the query names. */
export const RELOAD_PATH = "/.gatehouse/reload";

const SOFTWARE = "Gatehouse dev/";
/** A page that waits goes on waiting when `dev` is started again. */
const SCRIPT = `const { version } = document.currentScript.dataset;
const again = () => setTimeout(wait, 1000);
const wait = () => fetch("${RELOAD_PATH}?" + version, { cache: "no-store" })
  .then((response) => response.status === 205 ? location.reload() : again(), again);
wait();`;

/** Returns SERVER_SOFTWARE of `dev`. @param version The version of the app that gets the request. */
export function developmentSoftware(version: number): string {
  return SOFTWARE + version;
}

/** Returns the version of the app if a request came through `dev`, else undefined. */
export function developmentVersion({ variables }: DebugInfo): string | undefined {
  const software = variables.get("SERVER_SOFTWARE") ?? "";
  return software.startsWith(SOFTWARE) ? software.slice(SOFTWARE.length) : undefined;
}

/** Returns the HTML that reloads a page, and what its Content-Security-Policy must allow for it. */
export async function reloadScript(version: string): Promise<{ html: string; policy: string }> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(SCRIPT));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(hash)));
  return {
    html: `<script data-version="${parseInt(version)}">${SCRIPT}</script>\n`,
    policy: `; script-src 'sha256-${base64}'; connect-src 'self'`,
  };
}
