import { Buffer } from "@std/io/buffer";
import type { App } from "../../bridge/app.ts";
import { type CGIOptions, serveCGI } from "../../cgi.ts";
import { type Answer, parseAnswer } from "./answer.ts";
import { text } from "./bytes.ts";
import { deadline } from "./deadline.ts";

/** Answers one request by `serveCGI()`, all handed in. */
export async function run(
  app: App,
  env: Record<string, string> = {},
  body: Uint8Array = new Uint8Array(),
  options: CGIOptions = {},
): Promise<Answer & { stderr: string }> {
  const stdout = new Buffer();
  const stderr = new Buffer();
  const served = serveCGI(app, {
    env: {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: "GET",
      SERVER_NAME: "example.org",
      ...env,
    },
    stdin: new Buffer(body.slice().buffer),
    stdout,
    stderr,
    ...options,
  });
  await deadline(served, "the script's end");
  return { ...parseAnswer(stdout.bytes()), stderr: text(stderr.bytes()) };
}
