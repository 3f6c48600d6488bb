import { serve } from "../../../mod.ts";

await serve(() => new Response("Hello, world"));
