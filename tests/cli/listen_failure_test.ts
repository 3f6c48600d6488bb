import { assertEquals } from "@std/assert";
import { listenFailure } from "../../cli/listen_failure.ts";

/** Creates a system error with its code. */
function systemError(code: string): Error {
  return Object.assign(new Error(`listen ${code}`), { code });
}

const EXPLAINED: [code: string, address: string, message: string][] = [
  ["EADDRINUSE", "127.0.0.1:9000", "it is in use. Try --listen 127.0.0.1:9001"],
  ["EADDRINUSE", "[::1]:9000", "it is in use. Try --listen '[::1]:9001'"],
  [
    "EACCES",
    "127.0.0.1:80",
    "ports below 1024 need root or CAP_NET_BIND_SERVICE. Try --listen 127.0.0.1:8080",
  ],
  [
    "EADDRNOTAVAIL",
    "192.0.2.1:80",
    "this machine does not have the address. Try --listen 127.0.0.1:80",
  ],
  [
    "ENOENT",
    "unix:/nonexistent/dir/app.sock",
    "/nonexistent/dir does not exist. Create it: mkdir -p /nonexistent/dir",
  ],
  [
    "EACCES",
    "unix:/run/app.sock",
    'this user may not create files in /run. Try a folder of your own: sudo install -d -o "$USER" /run/app, ' +
    "and --listen unix:/run/app/app.sock",
  ],
  [
    "ENOENT",
    "unix:/nonexistent/a b/app.sock",
    "/nonexistent/a b does not exist. Create it: mkdir -p '/nonexistent/a b'",
  ],
];
for (const [code, address, message] of EXPLAINED) {
  Deno.test(`listenFailure() explains ${code} of ${address}`, () => {
    const failure = listenFailure(systemError(code), address);
    assertEquals(failure.message, `Cannot listen on ${address}: ${message}`);
  });
}

Deno.test("listenFailure() names the flags that Deno lacks", () => {
  const error = new Deno.errors.NotCapable('Requires net access to "x", run again with …');
  assertEquals(
    listenFailure(error, "unix:/run/app.sock").message,
    'Cannot listen on unix:/run/app.sock as Deno denies it: Requires net access to "x". ' +
      'Type --allow-net=unix:/run/app.sock --allow-read=/run/app.sock --allow-write=/run/app.sock after "deno run"',
  );
});

Deno.test("listenFailure() returns other messages unchanged", () => {
  assertEquals(
    listenFailure(new Error("Cannot listen as …"), "fd:3").message,
    "Cannot listen as …",
  );
});

Deno.test("listenFailure() explains the errors of Deno.listen", async () => {
  const { listen } = await import("../../fastcgi.ts");
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${taken.addr.port}`;
  const inUse = await listen(address).catch((error) => listenFailure(error, address));
  assertEquals((inUse as Error).message.includes("it is in use"), true);
  const absent = "unix:/nonexistent/dir/app.sock";
  const missing = await listen(absent).catch((error) => listenFailure(error, absent));
  assertEquals((missing as Error).message.includes("/nonexistent/dir does not exist"), true);
});
