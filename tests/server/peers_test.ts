import { assertEquals, assertThrows } from "@std/assert";
import { AllowedPeers, checkExposure } from "../../server/peers.ts";
import { isLoopback } from "../../wire/ip_address.ts";

Deno.test("isLoopback() compares addresses, not texts", () => {
  for (const host of ["127.0.0.1", "127.9.9.9", "::1", "0::1", "::ffff:7f00:1", "LOCALHOST"]) {
    assertEquals(isLoopback(host), true, host);
  }
  for (const host of ["0.0.0.0", "::", "128.0.0.1", "127.0.0.1.example", "127.0.0.256", "::2"]) {
    assertEquals(isLoopback(host), false, host);
  }
});

Deno.test("AllowedPeers compares addresses and ranges, not texts", () => {
  const peers = new AllowedPeers(["192.0.2.1", "2001:0DB8::/32", "::ffff:192.0.2.2"]);
  const has = (hostname: string) => peers.has({ transport: "tcp", hostname, port: 1 });
  for (const host of ["192.0.2.1", "::ffff:c000:201", "2001:db8::1", "192.0.2.2"]) {
    assertEquals(has(host), true, host);
  }
  for (const host of ["192.0.2.3", "2001:db9::2", "", "x"]) assertEquals(has(host), false, host);
  assertEquals(peers.has({ transport: "unix", path: "192.0.2.1" }), false);
  assertThrows(
    () => new AllowedPeers(["localhost"]),
    TypeError,
    'webServerAddresses must be IP addresses, or ranges such as 10.0.0.0/8: current value is "localhost"',
  );
});

Deno.test("checkExposure() allows no kind of address that it does not know", () => {
  const machine = { transport: "vsock", cid: 3, port: 9000 } as Deno.Addr;
  assertThrows(
    () => checkExposure(machine, false, "allowRemote: true"),
    Error,
    "current address is one of vsock",
  );
  checkExposure(machine, true, "allowRemote: true");
  checkExposure({ transport: "unix", path: "/run/a" }, false, "allowRemote: true");
});
