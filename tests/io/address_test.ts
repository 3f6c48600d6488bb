import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { canonicalIP, type Endpoint, nameOf, parseAddress } from "../../io/address.ts";
import { AllowedPeers, checkExposure, isLoopback } from "../../io/peers.ts";

Deno.test("nameOf() returns an address that parseAddress() reads", () => {
  const endpoints: [Endpoint, string][] = [
    [{ transport: "tcp", hostname: "127.0.0.1", port: 9 }, "127.0.0.1:9"],
    [{ transport: "tcp", hostname: "::1", port: 9 }, "[::1]:9"],
    [{ transport: "unix", path: "/run/a:b" }, "unix:/run/a:b"],
  ];
  for (const [endpoint, address] of endpoints) {
    assertEquals([nameOf(endpoint), parseAddress(address)], [address, endpoint]);
  }
});

Deno.test("an error of connecting names an IPv6 address as users type it", async () => {
  const error = await assertRejects(() => fetchFastCGI("http://localhost/", "[::1]:9"), Error);
  assertEquals(error.message.split(": ")[0], "Cannot connect to [::1]:9");
});

const FORMS: [text: string, canonical: string | undefined][] = [
  ["127.0.0.1", "127.0.0.1"],
  ["::1", "::1"],
  ["0:0:0:0:0:0:0:1", "::1"],
  ["2001:DB8:0::0:1", "2001:db8::1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["::FFFF:c000:201", "192.0.2.1"],
  ["::ffff:0:1", "0.0.0.1"],
  ["fe80::1%eth0", "fe80::1"],
  ["010.0.0.1", undefined],
  ["256.0.0.1", undefined],
  ["1.2.3", undefined],
  ["1", undefined],
  ["", undefined],
  [":::", undefined],
  ["localhost", undefined],
  ["[::1]", undefined],
  ["::1]/?[", undefined],
];
for (const [text, canonical] of FORMS) {
  Deno.test(`canonicalIP() of ${JSON.stringify(text)} is ${canonical}`, () => {
    assertEquals(canonicalIP(text), canonical);
  });
}

Deno.test("isLoopback() compares addresses, not texts", () => {
  for (const host of ["127.0.0.1", "127.9.9.9", "::1", "0::1", "::ffff:7f00:1", "LOCALHOST"]) {
    assertEquals(isLoopback(host), true, host);
  }
  for (const host of ["0.0.0.0", "::", "128.0.0.1", "127.0.0.1.example", "127.0.0.256", "::2"]) {
    assertEquals(isLoopback(host), false, host);
  }
});

Deno.test("AllowedPeers compares addresses, not texts", () => {
  const peers = new AllowedPeers(["192.0.2.1", "2001:0DB8::0001", "::ffff:192.0.2.2"]);
  const has = (hostname: string) => peers.has({ transport: "tcp", hostname, port: 1 });
  for (const host of ["192.0.2.1", "::ffff:c000:201", "2001:db8::1", "192.0.2.2"]) {
    assertEquals(has(host), true, host);
  }
  for (const host of ["192.0.2.3", "2001:db8::2", "", "x"]) assertEquals(has(host), false, host);
  assertEquals(peers.has({ transport: "unix", path: "192.0.2.1" }), false);
  assertThrows(
    () => new AllowedPeers(["localhost"]),
    TypeError,
    'webServerAddresses must be IP addresses: current value is "localhost"',
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
