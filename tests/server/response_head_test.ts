import { assertThrows } from "@std/assert";
import { checkResponse } from "../../server/response_head.ts";

/** Returns a response of a class that inherits from `Response` and is not made by it, as srvx has for Node. */
function foreignResponse(): Response {
  class NodeResponse {
    status = 200;
  }
  Object.setPrototypeOf(NodeResponse.prototype, Response.prototype);
  return new NodeResponse() as unknown as Response;
}

Deno.test("checkResponse() says what to return in place of a response of another class", () => {
  assertThrows(
    () => checkResponse(foreignResponse()),
    TypeError,
    "Cannot send response as it must be a Response of Deno: current value is of the class NodeResponse. Return new Response(response.body, response)",
  );
});
