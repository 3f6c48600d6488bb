import { assertEquals } from "@std/assert";
import { Channel } from "../../io/channel.ts";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { deadline } from "../testing/deadline.ts";
import { connected } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";

Deno.test("Channel reads on for a peer that sends all of its bytes before it reads any", async () => {
  const [theirs, ours] = connected(1000);
  const out = new ByteBuffer();
  let received = 0;
  const channel = new Channel(ours, out, {
    received(bytes) {
      received += bytes.length;
      return false;
    },
    shouldPause(stalled) {
      return received > 0 && !stalled;
    },
    inputEnded: () => channel.close(),
    failed: (error) => {
      throw error;
    },
  }, Infinity);
  const done = channel.run();
  // More than the connection takes while nothing is read.
  out.append(new Uint8Array(5000));
  channel.flush();
  for (let sent = 0; sent < 10_000; sent += 1000) {
    // Nobody calls check(): that a write makes no progress is noticed meanwhile.
    await deadline(theirs.write(new Uint8Array(1000)), "the channel to read on");
  }
  theirs.closeWrite();
  await deadline(done, "the channel's end");
  assertEquals(received, 10_000);
});

Deno.test("Channel stays paused while its peer reads, however long", async () => {
  const [theirs, ours] = connected(1000);
  const out = new ByteBuffer();
  const stalls: boolean[] = [];
  const channel: Channel = new Channel(ours, out, {
    received: () => false,
    shouldPause(stalled) {
      stalls.push(stalled);
      return channel.reads > 0;
    },
    inputEnded: () => {},
    failed: () => {},
  }, Infinity);
  const done = channel.run();
  await theirs.write(new Uint8Array(10));
  await turns(200);
  assertEquals(stalls.includes(true), false);
  channel.close();
  await deadline(done, "the channel's end");
});
