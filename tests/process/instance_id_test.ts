import { assertEquals } from "@std/assert";
import { withInstance } from "../../process/instance_id.ts";
import { OTLPReceiver } from "../testing/otlp_receiver.ts";
import { startFleet, workers } from "../testing/fleet.ts";

const CASES: Record<string, [attributes: string, expected: string]> = {
  "none": ["", "service.instance.id=7"],
  "others": ["service.name=a,x=y=z", "service.name=a,x=y=z,service.instance.id=7"],
  "one of its own": ["service.instance.id=host,x=y", "x=y,service.instance.id=host-7"],
  "two of its own": [
    "service.instance.id=a, service.instance.id = b",
    "service.instance.id=b-7",
  ],
  "one that is empty": ["service.instance.id=,", "service.instance.id=7"],
};

for (const [name, [attributes, expected]] of Object.entries(CASES)) {
  Deno.test(`withInstance() adds an id to ${name}`, () => {
    assertEquals(withInstance(attributes, "7"), expected);
  });
}

Deno.test("each worker exports a service.instance.id of its own", async () => {
  const receiver = new OTLPReceiver();
  await using _ = receiver;
  const env = {
    ...receiver.env,
    OTEL_RESOURCE_ATTRIBUTES: "service.name=app,service.instance.id=h",
  };
  {
    await using fleet = await startFleet("unix", { env });
    await workers(fleet, 2);
  }
  const ids = new Set(
    receiver.resources.map((attributes) => attributes["service.instance.id"]?.stringValue),
  );
  const named = [...ids].filter((id) => /^h-[0-9a-f-]{36}$/.test(String(id)));
  assertEquals(named.length, 2);
  const names = receiver.resources.map((attributes) => attributes["service.name"].stringValue);
  assertEquals([...new Set(names)], ["app"]);
});
