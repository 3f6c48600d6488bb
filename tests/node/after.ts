import { runAll } from "./before.ts";

await runAll();
