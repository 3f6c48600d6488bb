import { serveCGI } from "../../../cgi.ts";

await serveCGI(() => new Response("Hello, world"));
