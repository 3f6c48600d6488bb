#!/usr/bin/env -S deno run --allow-env --allow-net
/**
 * Login and session in Hono. The session is a signed cookie, so that it outlives a CGI process; forms from
 * other sites are rejected.
 *
 * Run `./examples/login.ts` and log in on http://localhost:8000 as `ann` with `open sesame`. Behind a web server it does not
 * start without SESSION_SECRET; replace the table by your own, too.
 */
import { Hono } from "npm:hono@4.13.19";
import { deleteCookie, getSignedCookie, setSignedCookie } from "npm:hono@4.13.19/cookie";
import { bodyLimit } from "npm:hono@4.13.19/body-limit";
import { csrf } from "npm:hono@4.13.19/csrf";
import { serve } from "../mod.ts";

const SECRET = Deno.env.get("SESSION_SECRET") ?? demonstrationSecret();
const ONE_DAY = 86_400;
/** Each user's salt and hash of the password. */
const USERS = new Map([
  ["ann", {
    salt: "f1a0",
    hash: "e86fbbd93233169cddf4392f1dc38c9e960ff660ca5bac50bd297d9295bb6dec",
  }],
]);

const app = new Hono();
app.use(csrf());
// Hono reads a form into memory.
app.use(bodyLimit({ maxSize: 16_384 }));

app.get("/", async (c) => {
  const user = await readSession(await getSignedCookie(c, SECRET, "session"));
  if (user === undefined) return c.html(loginForm("Who are you?"));
  return c.html(page(`<p>Hello, ${user}.
<form method="post" action="?action=logout"><button>Log out</button></form>`));
});

app.post("/", async (c) => {
  if (c.req.query("action") === "logout") {
    deleteCookie(c, "session", { path: "/" });
    return c.redirect("?", 303);
  }
  const { user, password } = await c.req.parseBody();
  if (!await isPassword(String(user), String(password))) {
    return c.html(loginForm("Try again."), 403);
  }
  const session = `${user}:${Math.floor(Date.now() / 1000) + ONE_DAY}`;
  await setSignedCookie(c, "session", session, SECRET, {
    path: "/",
    httpOnly: true,
    sameSite: "Lax",
    secure: new URL(c.req.url).protocol === "https:",
    maxAge: ONE_DAY,
  });
  return c.redirect("?", 303);
});

/** Returns a secret for sessions that end with this process, which only this machine can reach. */
function demonstrationSecret(): string {
  if (!import.meta.main || Deno.env.has("GATEWAY_INTERFACE")) {
    throw new Error("Set SESSION_SECRET, as in: export SESSION_SECRET=$(openssl rand -hex 32)");
  }
  return crypto.randomUUID();
}

/** Returns the user of a session that has not expired. The cookie's signature is already verified. */
function readSession(session: string | false | undefined): string | undefined {
  const [, user, expires] = /^(\w+):(\d+)$/.exec(session || "") ?? [];
  return Number(expires) * 1000 > Date.now() ? user : undefined;
}

/** Takes as long for an unknown user as for a wrong password. */
async function isPassword(user: string, password: string): Promise<boolean> {
  const { salt, hash } = USERS.get(user) ?? { salt: "", hash: "" };
  const encoder = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", encoder.encode(password), "PBKDF2", false, [
    "deriveBits",
  ]);
  const parameters = {
    name: "PBKDF2",
    hash: "SHA-256",
    salt: encoder.encode(salt),
    iterations: 210_000,
  };
  const bits = await crypto.subtle.deriveBits(parameters, key, 256);
  return new Uint8Array(bits).toHex() === hash;
}

function loginForm(text: string): string {
  return page(`<p>${text}
<form method="post" action="?">
<p><label>User <input name="user" autocomplete="username"></label>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label>
<p><button>Log in</button>
</form>`);
}

function page(content: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Login</title>
</head>
<body>
${content}
</body>
</html>
`;
}

export default app.fetch;
if (import.meta.main) await serve(app, { basePath: "auto" });
