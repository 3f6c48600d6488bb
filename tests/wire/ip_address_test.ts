import { assertEquals, assertThrows } from "@std/assert";
import { AddressSet, canonicalIP } from "../../wire/ip_address.ts";

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

/** Entries of an address set, and addresses that it has and has not. */
const SETS: [entries: string[], has: string[], hasNot: string[]][] = [
  [[], [], ["127.0.0.1", "::1", ""]],
  [["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], [
    "9.255.255.255",
    "11.0.0.0",
  ]],
  [["192.0.2.128/25"], ["192.0.2.128", "192.0.2.255"], ["192.0.2.127", "192.0.3.128"]],
  [["192.0.2.6/31"], ["192.0.2.6", "192.0.2.7"], ["192.0.2.5", "192.0.2.8"]],
  [["192.0.2.1/32"], ["192.0.2.1", "::ffff:c000:201"], ["192.0.2.0", "192.0.2.2"]],
  [["0.0.0.0/0"], ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1", "x", ""]],
  [["2001:db8::/32"], ["2001:db8::", "2001:DB8:ffff::1"], ["2001:db9::", "2001:db7:ffff::"]],
  [["2001:db8::8/125"], ["2001:db8::f", "2001:db8:0::8"], ["2001:db8::7", "2001:db8::10"]],
  [["1:2:3:4:5:6:7:8/128"], ["1:2:3:4:5:6:7:8"], ["1:2:3:4:5:6:7:9"]],
  [["fe80::/10"], ["fe80::1%eth0", "febf::1"], ["fec0::1", "fe7f::1"]],
  // An IPv4 address is none of IPv6, however it is written.
  [["::/0"], ["::", "2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]],
  [["::ffff:10.0.0.0/104"], ["10.1.2.3", "::ffff:a01:203"], ["11.0.0.0", "::a01:203"]],
  [["::ffff:0:0/96"], ["1.2.3.4"], ["::1"]],
  [["127.0.0.1", "::1", "10.0.0.0/8"], ["127.0.0.1", "0::1", "10.9.9.9"], ["127.0.0.2", "::2"]],
];
for (const [entries, has, hasNot] of SETS) {
  Deno.test(`AddressSet of ${JSON.stringify(entries)}`, () => {
    const set = new AddressSet(entries, (text) => new Error(text));
    for (const address of has) assertEquals(set.has(address), true, address);
    for (const address of hasNot) assertEquals(set.has(address), false, address);
  });
}

Deno.test("AddressSet takes no text that is neither an address nor a range", () => {
  const bad = [
    ...["", "localhost", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "10/8"],
    ...["10.0.0.0/255.0.0.0", " 10.0.0.0/8", "10.0.0.0/8 ", "10.0.0.0/1e1", "010.0.0.0/8"],
    ...["::/129", "::1/1000", "[::1]/128", "*", "10.0.0.*"],
    // Bits after the prefix: the range or the address is a mistake.
    ...["10.0.0.1/8", "192.0.2.1/31", "2001:db8::1/64", "1.2.3.4/0", "::ffff:10.0.0.0/95"],
  ];
  for (const text of bad) {
    const error = assertThrows(() => new AddressSet(["::1", text], (text) => new TypeError(text)));
    assertEquals((error as Error).message, text);
  }
});
