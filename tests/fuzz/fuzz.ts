/** Mutates captured bytes, lets every {@linkcode TARGETS | target} take them in four chunkings, and keeps what fails. */
import { assertEquals } from "@std/assert";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { deadline } from "../testing/deadline.ts";
import { cuttings, minimise, mutate, Random } from "./bytes.ts";
import { type Target, TARGETS } from "./targets.ts";

/** The folder of the inputs that have failed once, each named `target.seed.bin`. */
export const FOUND = new URL("../testdata/fuzz/", import.meta.url);

/** An input that a target does not take as it should. */
export interface Failure {
  target: string;
  /** The seed that leads to it. */
  seed: number;
  input: Uint8Array<ArrayBuffer>;
  error: unknown;
}

/** Options of {@linkcode fuzz}. */
export interface FuzzOptions {
  seed: number;
  /** How long to fuzz, in milliseconds. */
  duration: number;
  /** The names of the targets. @default all */
  targets?: string[];
}

/** What {@linkcode fuzz} has done. */
export interface Fuzzed {
  /** The number of inputs that each target took. */
  inputs: Record<string, number>;
  failure: Failure | undefined;
}

async function outcomeOf(target: Target, chunks: Uint8Array[]): Promise<unknown> {
  try {
    return await target.take(chunks);
  } catch (error) {
    if (error instanceof ProtocolError) return [error.status, error.message];
    throw error;
  }
}

/**
 * Lets a target take an input in four chunkings.
 *
 * @throws If the outcomes differ, an error is no `ProtocolError`, or a promise rejects that nothing handles.
 */
export async function check(target: Target, input: Uint8Array): Promise<void> {
  const unhandled: unknown[] = [];
  const listen = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled.push(event.reason);
  };
  addEventListener("unhandledrejection", listen);
  try {
    const chunkings = cuttings(input, target.borders(input), new Random(input.length));
    let whole: unknown;
    for (const [name, chunks] of Object.entries(chunkings)) {
      const outcome = await deadline(outcomeOf(target, chunks), `an input cut ${name}`);
      if (name === "whole") whole = outcome;
      assertEquals(outcome, whole, `cut ${name}`);
    }
  } finally {
    removeEventListener("unhandledrejection", listen);
  }
  if (unhandled.length > 0) throw unhandled[0];
}

async function errorOf(target: Target, input: Uint8Array): Promise<{ error: unknown } | undefined> {
  try {
    await check(target, input);
    return undefined;
  } catch (error) {
    return { error };
  }
}

/** Fuzzes until the time is over or an input fails. */
export async function fuzz(options: FuzzOptions): Promise<Fuzzed> {
  const { duration, targets = Object.keys(TARGETS) } = options;
  const inputs: Record<string, number> = Object.fromEntries(targets.map((name) => [name, 0]));
  const end = performance.now() + duration;
  let { seed } = options;
  while (performance.now() < end) {
    // A seed determines one input of each target, so that the seed of a failure repeats it at once.
    for (const name of targets) {
      const target = TARGETS[name];
      const random = new Random(seed);
      for (let left = target.share; left > 0; left--) {
        const input = mutate(target.corpus, random);
        inputs[name]++;
        const found = await errorOf(target, input);
        if (found === undefined) continue;
        const least = await minimise(
          input,
          async (shorter) => await errorOf(target, shorter) !== undefined,
        );
        const error = (await errorOf(target, least) ?? found).error;
        return { inputs, failure: { target: name, seed, input: least, error } };
      }
    }
    seed++;
  }
  return { inputs, failure: undefined };
}

/** Writes a failure's input to the folder whose files are taken in every test run. Returns its path. */
export function keep({ target, seed, input }: Failure): string {
  const file = new URL(`${target}.${seed}.bin`, FOUND);
  Deno.mkdirSync(FOUND, { recursive: true });
  Deno.writeFileSync(file, input);
  return file.pathname;
}
