/** Sends requests by the gateways of this runtime, and prints what came of them: `runtimes_program.ts FASTCGI SCGI FREE`. */
import { argv } from "node:process";
import { fastCGIGateway, fetchFastCGI, scgiGateway } from "../../gateway.ts";

const [fastcgi, scgi, free] = argv.slice(2);
const url = "http://example.org/echo";

/** Returns a body of chunks, whose length is not known. */
function chunks(count: number): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      if (count-- === 0) controller.close();
      else controller.enqueue(new Uint8Array(100_000).fill(120));
    },
  });
}

async function outcome(response: Promise<Response> | Response): Promise<[number, number]> {
  const { status, body } = await response;
  let length = 0;
  for await (const chunk of body ?? []) length += chunk.length;
  return [status, length];
}

const lines: string[] = [];
await using gateway = fastCGIGateway(fastcgi, { log: (line) => lines.push(line) });
await using scgiApp = scgiGateway(scgi);
const post = (body: BodyInit) => {
  const init = { method: "POST", body, duplex: "half" };
  return new Request(url, init);
};
const abort = new AbortController();
const aborted = gateway(new Request("http://example.org/stream", { signal: abort.signal }));
abort.abort();
console.log(JSON.stringify({
  fetched: await outcome(fetchFastCGI(post("body"), fastcgi)),
  small: await outcome(gateway(post("body"))),
  stream: await outcome(gateway(post(chunks(20)))),
  scgi: await outcome(scgiApp(post("body"))),
  many: (await Promise.all(Array.from({ length: 20 }, () =>
    outcome(gateway(post("body")))))).length,
  refused: (await outcome(
    fastCGIGateway(free, { log: (line) => lines.push(line) })(new Request(url)),
  ))[0],
  absent: (await outcome(
    fastCGIGateway("unix:/nonexistent/app.sock", { log: (line) => lines.push(line) })(
      new Request(url),
    ),
  ))[0],
  aborted: await Promise.resolve(aborted).then(({ status }) => status, (error) => error.name),
  lines,
}));
