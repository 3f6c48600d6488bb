import { assertEquals } from "@std/assert";
import { createVariables } from "../../bridge/request_variables.ts";
import { createURLVariables } from "../../server/url_variables.ts";

Deno.test("createURLVariables() creates some of the same variables, or none", () => {
  const host = "example.org:8080";
  const headers = {
    host,
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "www.example.org",
    forwarded: "for=unknown",
    accept: "*/*",
  };
  for (const target of ["/", "/a%20b//c;d?", "/a?b=1&c=%20", "/a?b?c", "//other/a"]) {
    const request = new Request(`http://example.org:8080${target}`, { headers });
    const all = Object.fromEntries(createVariables(request, { pathInfo: "" }));
    const some = createURLVariables(request, host, true)!;
    for (const [name, value] of some) assertEquals([name, value], [name, all[name]]);
    assertEquals(some.length, 6);
    assertEquals(createURLVariables(request, host, false), some.slice(0, 4));
    request.headers.delete("x-forwarded-proto");
    assertEquals(createURLVariables(request, host, true)!.length, 5);
    request.headers.delete("x-forwarded-host");
    assertEquals(createURLVariables(request, host, true)!.length, 6);
  }
  for (const url of ["http://example.org/a#b", "http+unix://%2Ftmp%2Fsocket/a"]) {
    assertEquals(createURLVariables(new Request(url, { headers }), host, true), undefined);
  }
  assertEquals(createURLVariables(new Request("http://example.org/"), null, true), undefined);
});
