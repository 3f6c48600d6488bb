import { assertEquals } from "@std/assert";
import type { HandlerInfo } from "../../bridge/app.ts";
import { bytes, text } from "../testing/bytes.ts";
import { silence } from "../testing/silence.ts";
import app from "./app.ts";
import { checkAll } from "./behaviours.ts";
import { REQUEST_CHECKS } from "./request_checks.ts";
import { type ClientRequest, overDenoServe, TRANSPORTS } from "./transports.ts";

for (const [name, start] of Object.entries(TRANSPORTS)) {
  Deno.test(`every behaviour is the same over ${name} (rule B23)`, async (t) => {
    using _ = silence();
    await checkAll(t, start);
  });
}

for (const [name, start] of Object.entries(TRANSPORTS)) {
  Deno.test(`a request over ${name} behaves as one of Deno.serve`, async (t) => {
    using _ = silence();
    await using native = overDenoServe((request, info) => app.fetch(request, info as HandlerInfo));
    await using transport = start("plain");
    for (const check of Object.keys(REQUEST_CHECKS)) {
      await t.step(check, async () => {
        const request: ClientRequest = {
          method: "POST",
          target: `/check/${encodeURIComponent(check)}`,
          headers: [["Cookie", "a=1"], ["X-A", "1"]],
          body: bytes("body"),
        };
        const expected = await native.send(request);
        assertEquals(expected.status, 200);
        const response = await transport.send(request);
        assertEquals(text(response.body), text(expected.body));
      });
    }
  });
}
