/** The test app with FastCGI's authorizer role: it allows requests that carry the key. */
import type { HandlerInfo } from "../../bridge/app.ts";
import { allow } from "../../fastcgi.ts";
import app from "./app.ts";

const authorizer = {
  fetch: app.fetch,
  authorize: (request: Request, { variables }: HandlerInfo): Response => {
    const key = request.headers.get("x-key") ?? variables.get("REMOTE_PASSWD");
    if (key !== "right") return new Response("Not without the key\n", { status: 403 });
    return allow({ LET_IN_BY: "key", METHOD_SEEN: request.method });
  },
};

export default authorizer;
