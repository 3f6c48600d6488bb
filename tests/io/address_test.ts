import { assertEquals, assertRejects } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { addressOf, type Endpoint, nameOf, parseAddress } from "../../io/address.ts";

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

Deno.test("addressOf() returns the address of a listener, or undefined if it has none", () => {
  const addresses: [Deno.Addr, string | undefined][] = [
    [{ transport: "tcp", hostname: "::1", port: 9 }, "[::1]:9"],
    [{ transport: "unix", path: "/run/a" }, "unix:/run/a"],
    [{ transport: "unix", path: "" }, undefined],
    [{ transport: "vsock", cid: 1, port: 9 }, undefined],
  ];
  for (const [addr, address] of addresses) assertEquals(addressOf(addr), address);
});

Deno.test("an error of connecting names an IPv6 address as users type it", async () => {
  const error = await assertRejects(() => fetchFastCGI("http://localhost/", "[::1]:9"), Error);
  assertEquals(error.message.split(": ")[0], "Cannot connect to [::1]:9");
});
