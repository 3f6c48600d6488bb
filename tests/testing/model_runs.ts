/** How many scenarios a test of a model tries. `deno task models` tries more. */
export function modelRuns(): number {
  return Number(Deno.env.get("GATEHOUSE_MODEL_RUNS") ?? 10);
}
