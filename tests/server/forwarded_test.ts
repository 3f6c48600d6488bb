import { assertEquals, assertThrows } from "@std/assert";
import { checkTrust, isTrusted } from "../../server/forwarded.ts";

/** What REMOTE_ADDR is for a peer on a Unix socket: in nginx, lighttpd, Caddy, HAProxy and h2o. */
const UNIX = ["unix:", "/run/lighttpd.sock", "@", "unix", "localhost"];

const CASES: [trust: boolean | string[] | undefined, trusted: string[], others: string[]][] = [
  [undefined, [], ["127.0.0.1", "unix", ""]],
  [false, [], ["127.0.0.1", "unix", ""]],
  [true, ["192.0.2.1", ...UNIX, ""], []],
  [[], [], ["127.0.0.1", "::1", "192.0.2.1", ...UNIX, ""]],
  [["loopback"], ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"], ["128.0.0.1", ...UNIX, ""]],
  [["unix"], UNIX, ["127.0.0.1", "::1", "", "unix.example", "localhost.example", "vsock"]],
  [["10.0.0.0/8", "2001:db8::1"], ["10.1.2.3", "2001:DB8:0::1"], ["11.0.0.1", "2001:db8::2", ""]],
  [["192.0.2.1", "loopback", "unix"], ["192.0.2.1", "::1", "unix:"], ["192.0.2.2", ""]],
];
for (const [trustForwarded, trusted, others] of CASES) {
  Deno.test(`trustForwarded: ${JSON.stringify(trustForwarded)} (rule A7)`, () => {
    checkTrust({ trustForwarded });
    for (const address of trusted) {
      assertEquals(isTrusted({ trustForwarded }, address), true, address);
    }
    for (const address of others) {
      assertEquals(isTrusted({ trustForwarded }, address), false, address);
    }
  });
}

Deno.test("checkTrust() rejects what is neither a boolean nor a list of proxies", () => {
  const bad = [
    ["localhost"],
    ["10.0.0.1/8"],
    ["127.0.0.1,::1"],
    ["UNIX"],
    [""],
    "10.0.0.1",
    1,
    {},
    null,
  ];
  for (const trustForwarded of bad) {
    const value = Array.isArray(trustForwarded) ? trustForwarded[0] : trustForwarded;
    assertThrows(
      () => checkTrust({ trustForwarded: trustForwarded as string[] }),
      TypeError,
      `"loopback" and "unix": current value is ${JSON.stringify(value)}`,
    );
  }
});
