/** An app as people write it. */
import { Hono } from "npm:hono@4.13.19";

const app: Hono = new Hono();
app.get("*", (context) => context.text("Hello, world"));
export default app;
