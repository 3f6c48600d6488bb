#!/usr/bin/env -S deno run --allow-env --allow-net
import { serve } from "../mod.ts";

const app = () => new Response("Hello from Gatehouse\n");

export default app;
if (import.meta.main) await serve(app);
