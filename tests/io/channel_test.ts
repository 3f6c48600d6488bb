import { assertEquals } from "@std/assert";
import { Channel } from "../../io/channel.ts";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { deadline } from "../testing/deadline.ts";
import { connected } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";

Deno.test("Channel keeps reading from a peer that sends everything before it reads", async () => {
  const [theirs, ours] = connected(1000);
  const out = new ByteBuffer();
  let received = 0;
  const channel = new Channel(ours, out, {
    received(bytes) {
      received += bytes.length;
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
  // More than the connection buffers while the peer does not read.
  out.append(new Uint8Array(5000));
  channel.flush();
  for (let sent = 0; sent < 10_000; sent += 1000) {
    // Without a call of check(): the channel notices the stalled write by itself.
    await deadline(theirs.write(new Uint8Array(1000)), "the channel to keep reading");
  }
  theirs.closeWrite();
  await deadline(done, "the channel's end");
  assertEquals(received, 10_000);
});

Deno.test("Channel stays paused for as long as its peer reads", async () => {
  const [theirs, ours] = connected(1000);
  const out = new ByteBuffer();
  const stalls: boolean[] = [];
  const channel: Channel = new Channel(ours, out, {
    received: () => {},
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
