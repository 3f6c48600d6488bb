/** The behaviours on Node and Bun, and how these differ from Deno: docs/differences.md has them, too. */
import { type OtherRuntime, testOn } from "../testing/runtimes.ts";
import { type Behaviour, BEHAVIOURS, checkAll } from "./behaviours.ts";
import { transportsOn } from "./transports.ts";

/** What is different, by the name of the behaviour. */
const DIFFERENCES: Record<OtherRuntime["name"], Record<string, Partial<Behaviour>>> = {
  Node: {
    // Headers of a request can be changed.
    "basePath, and an app that changes the headers": { body: "[null,null]" },
  },
  Bun: {
    "basePath, and an app that changes the headers": { body: "[null,null]" },
    // Its Request has the method PATCH.
    "the method patch": { status: 501, seen: undefined },
    "a form with a file": { body: '["café","a.txt","text/plain;charset=utf-8","file"]' },
  },
};

/** The type of a text that Deno and Node give to a Response, and ours where Bun gives none. */
const TYPES = ["text/plain;charset=UTF-8", "text/plain; charset=utf-8"];

function behavioursOn({ name }: OtherRuntime): Behaviour[] {
  return BEHAVIOURS.map((usual) => {
    const behaviour = { ...usual, ...DIFFERENCES[name][usual.name] };
    const { status, headers } = behaviour;
    if (name !== "Bun" || status === 500 || headers?.["content-type"] !== TYPES[0]) {
      return behaviour;
    }
    return { ...behaviour, headers: { ...headers, "content-type": TYPES[1] } };
  });
}

for (const protocol of ["CGI", "FastCGI", "SCGI"]) {
  testOn(`every behaviour is the same over ${protocol} (rule B23)`, async (runtime, t) => {
    await checkAll(t, transportsOn(runtime)[protocol], behavioursOn(runtime));
  });
}
