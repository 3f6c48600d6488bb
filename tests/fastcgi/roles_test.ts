import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { FilterInfo } from "../../bridge/app.ts";
import { allow } from "../../fastcgi.ts";
import { ProtocolStatus, RecordType, Role } from "../../wire/fastcgi.ts";
import { bytes, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { MEDIA, turns } from "../testing/serving.ts";
import { request, serveOne, variables } from "../testing/fastcgi_client.ts";
import {
  beginRequest,
  getValues,
  params,
  stdin,
  stdinEnd,
  stream,
  streamEnd,
} from "../testing/fastcgi_records.ts";
import { hello, post, serving } from "../testing/fastcgi_serving.ts";

Deno.test("serveFastCGI() sends a whole response to an unknown role, with FCGI_UNKNOWN_ROLE (rules C7, C19)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const role of [0, 4, 257, 65535]) {
      await client.send(request({ role, keep: true }));
      const response = await client.response();
      assertEquals([response.status, response.complete], [500, true]);
      assertEquals(response.end, { appStatus: 0, protocolStatus: ProtocolStatus.unknownRole });
      assertStringIncludes(response.stderr, `Refused a request of role ${role}`);
    }
    for (const role of [Role.authorizer, Role.filter]) {
      await client.send(request({ role, keep: true }));
      const response = await client.response();
      assertEquals(response.end?.protocolStatus, ProtocolStatus.unknownRole);
    }
    await client.send(request({ keep: true }));
    assertEquals((await client.response()).status, 200);
  });
});

Deno.test("serveFastCGI() refuses an unknown role at FCGI_BEGIN_REQUEST (rule C7)", async () => {
  for (const over of MEDIA) {
    await serving(
      hello,
      {},
      async ({ connect }) => {
        for (const keep of [true, false]) {
          for (const role of [4, Role.authorizer, Role.filter]) {
            const client = await connect();
            await client.send(beginRequest(1, { role, keep }));
            const response = await client.response();
            assertEquals([response.status, response.complete], [500, true]);
            assertEquals(response.end?.protocolStatus, ProtocolStatus.unknownRole);
            await client.send(params(1, variables(post)), stdin(1, bytes("body")), stdinEnd(1));
            if (!keep) {
              await client.end();
              continue;
            }
            await client.send(request({ keep: true }));
            assertEquals((await client.response()).status, 200);
          }
        }
      },
      over,
    );
  }
});

Deno.test("an authorizer is called when the variables end, as no FCGI_STDIN follows (rules C27, C28)", async () => {
  const app = {
    fetch: () => new Response("not called"),
    authorize(request: Request) {
      assertEquals(request.body, null);
      return request.headers.get("x-user") === "alice"
        ? allow({ USER_ID: "7", NAME: "José" })
        : new Response("Forbidden here", { status: 403 });
    },
  };
  await serving(app, {}, async ({ connect }) => {
    for (const keep of [true, false]) {
      const client = await connect();
      const role = Role.authorizer;
      await client.send(
        beginRequest(1, { role, keep }),
        params(1, variables({ HTTP_X_USER: "alice" })),
      );
      const allowed = await client.response();
      assertEquals([allowed.status, allowed.complete], [200, true]);
      // mod_fcgid passes the names on unchanged.
      assertEquals(
        allowed.fields.filter(([name]) => name.startsWith("Variable-")),
        [["Variable-NAME", "Jos\xc3\xa9"], ["Variable-USER_ID", "7"]],
      );
      if (!keep) {
        await client.end();
        continue;
      }
      // A web server that does send an FCGI_STDIN.
      await client.send(request({ role, keep, variables: { HTTP_X_USER: "eve" } }));
      const denied = await client.response();
      assertEquals([denied.status, text(denied.body)], [403, "Forbidden here"]);
      await client.send(request({ role, keep, variables: { ...post, HTTP_X_USER: "alice" } }));
      assertEquals((await client.response()).status, 200);
    }
  });
});

const file = { FCGI_DATA_LENGTH: "8", FCGI_DATA_LAST_MOD: "1700000000" };

Deno.test("a filter receives the body and the file, and responds after the body (rule C29)", async () => {
  const app = {
    fetch: () => new Response("not called"),
    async filter(request: Request, info: FilterInfo) {
      assertEquals(["method", "url", "body", "signal"].filter((key) => key in info), []);
      assertEquals(info.dataLength, 8);
      assertEquals(info.dataLastModified, new Date(1700000000_000));
      const body = await request.text();
      const data = await new Response(info.data).text();
      return new Response(`${body} ${data.toUpperCase()}`);
    },
  };
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    const filter = { role: Role.filter, keep: true };
    await client.send(beginRequest(1, filter), params(1, variables({ ...post, ...file })));
    await client.send(stdin(1, bytes("body")), stdinEnd(1));
    await client.send(stream(RecordType.data, 1, bytes("the ")));
    await client.send(stream(RecordType.data, 1, bytes("file")), streamEnd(RecordType.data, 1));
    const response = await client.response();
    assertEquals([response.status, text(response.body)], [200, "body THE FILE"]);
    // Shorter than FCGI_DATA_LENGTH.
    await client.send(beginRequest(1, filter), params(1, variables({ ...post, ...file })));
    await client.send(stdinEnd(1), stream(RecordType.data, 1, bytes("the")));
    await client.send(streamEnd(RecordType.data, 1));
    const short = await client.response();
    assert(short.status! >= 400, "a file that ended early causes an error response");
    // Without a length or a time.
    for (const lacking of [{ FCGI_DATA_LENGTH: "" }, { FCGI_DATA_LAST_MOD: "yesterday" }]) {
      await client.send(request({ ...filter, variables: { ...file, ...lacking } }));
      await client.send(streamEnd(RecordType.data, 1));
      const bad = await client.response();
      assertEquals(bad.status, 400);
      assertStringIncludes(bad.stderr, "are not whole numbers");
    }
  });
});

Deno.test("a filter sends nothing before the end of FCGI_STDIN (rule C29)", async () => {
  const called = Promise.withResolvers<void>();
  const app = {
    fetch: () => new Response("not called"),
    filter() {
      called.resolve();
      return new Response("filtered");
    },
  };
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1, { role: Role.filter, keep: true }));
    await client.send(params(1, variables({ ...post, ...file })), stdin(1, bytes("some")));
    await deadline(called.promise, "the filter");
    await turns();
    // The response to a management record comes first: nothing was sent before it.
    await client.send(getValues("FCGI_MPXS_CONNS"));
    assertEquals((await client.next())?.type, RecordType.getValuesResult);
    await client.send(stdinEnd(1));
    assertEquals(text((await client.response()).body), "filtered");
  });
});

Deno.test("an app object is called as a method, and so are its roles", async () => {
  class Site {
    name = "Site";
    fetch() {
      return new Response(this.name);
    }
    authorize() {
      return new Response(`no ${this.name}`, { status: 403 });
    }
    filter() {
      return new Response(`filtered ${this.name}`);
    }
  }
  assertEquals(text((await serveOne(new Site())).body), "Site");
  assertEquals(text((await serveOne(new Site(), { role: Role.authorizer })).body), "no Site");
  const filtered = await serveOne(new Site(), { role: Role.filter, variables: file });
  assertEquals(text(filtered.body), "filtered Site");
});
