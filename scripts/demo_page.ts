/** The page of the demonstration: each example over each transport, with its time as a bar. */

/** The transports of the demonstration, in the order of the bars. */
export const TRANSPORTS = ["CGI", "FastCGI", "SCGI", "HTTP"] as const;
export type Transport = typeof TRANSPORTS[number];

/** The description of an example on the page. */
export interface Example {
  /** The file's name without `.ts`. */
  name: string;
  /** The action of the link. */
  action: string;
  about: string;
  /** Path and query of the link, below the example. */
  path: string;
  /** The path and query that is measured, if it differs. */
  measured?: string;
}

export const EXAMPLES: Example[] = [
  { name: "hello", action: "Say hello", about: "An app in ten lines.", path: "" },
  {
    name: "environment",
    action: "See the request",
    about: "The variables that an app gets with a request.",
    path: "/some/path?a=1",
  },
  {
    name: "form",
    action: "Send a form",
    about: "Fields and a file, with its SHA-256.",
    path: "/some/path?color=blue",
  },
  {
    name: "guestbook",
    action: "Sign the guestbook",
    about: "One SQLite file behind all four transports.",
    path: "",
  },
  {
    name: "hono",
    action: "Count your visits",
    about: "A Hono app with a session in an encrypted cookie.",
    path: "/visits",
  },
  {
    name: "events",
    action: "Watch the clock",
    about: "Server-sent events, one a second.",
    path: "",
    measured: "?interval=0",
  },
];

/** The time of a response, in milliseconds, or the error. */
export type Measurement = number | { failure: string };

/** Returns the path of an example over a transport. */
export function pathOf(transport: Transport, { name }: Example): string {
  return `/${transport.toLowerCase()}/${name}.ts`;
}

const STYLE = `
:root {
  color-scheme: light dark;
  --text: light-dark(#1d2433, #e6e9f0);
  --quiet: light-dark(#5b6474, #9aa4b5);
  --paper: light-dark(#f6f7f9, #12151b);
  --card: light-dark(#fff, #1b2029);
  --line: light-dark(#e0e3e9, #2c3340);
  --cgi: light-dark(#b45309, #f0a44b);
  --fastcgi: light-dark(#1d5fd1, #6ea8ff);
  --scgi: light-dark(#0f766e, #4fc7b9);
  --http: light-dark(#7c3aed, #b794ff);
}
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper); margin: 0; padding: 2rem 1rem }
header, main, footer { max-width: 64rem; margin: 0 auto }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 }
h2 { font-size: 1.1rem; margin: 0 }
p { margin: .35rem 0 0; max-width: 42rem }
.quiet, footer { color: var(--quiet) }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19.5rem), 1fr)); gap: 1rem; margin-block: 1.75rem }
article { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.1rem 1.1rem; min-width: 0 }
article p { font-size: .925rem; min-height: 3em }
code { font: .85em ui-monospace, monospace }
ul { list-style: none; margin: .6rem 0 0; padding: 0 }
li { display: grid; grid-template-columns: 6.75rem 1fr auto; align-items: center; gap: .6rem; padding: .15rem 0 }
a { color: inherit; text-underline-offset: .2em }
a:focus-visible { outline: 2px solid var(--fastcgi); outline-offset: 2px }
.bar { height: .5rem; border-radius: .25rem; background: var(--line) }
.bar i { display: block; height: 100%; min-width: 3px; border-radius: inherit; background: var(--color) }
.time { font-variant-numeric: tabular-nums; font-size: .9rem; min-width: 4.25rem; text-align: right }
.failed { color: light-dark(#b42318, #ff8d85); grid-column: 2 / -1; font-size: .9rem; overflow-wrap: anywhere }
.name { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
`;

/** Returns the beginning of the page, up to the first example. */
export function pageHead(): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gatehouse: one fetch handler, any web server</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>One fetch handler, any web server</h1>
<p>Each example is one file, and runs over four transports. Follow a link to use it; the bar is the time of a request,
measured while this page loaded.</p>
<p class="quiet">A CGI script starts a process for each request. The others are running already.</p>
</header>
<main>
`;
}

/** Returns an example with a link and a bar for each transport. */
export function exampleCard(
  example: Example,
  measurements: Record<Transport, Measurement>,
): string {
  const times = Object.values(measurements).filter((time) => typeof time === "number");
  const longest = Math.max(...times);
  const rows = TRANSPORTS.map((transport) => {
    const href = escape(pathOf(transport, example) + example.path);
    const link = `<a href="${href}"><span class="name">${
      escape(example.action)
    } </span>over ${transport}</a>`;
    const time = measurements[transport];
    if (typeof time !== "number") {
      return `<li>${link}<span class="failed">${escape(time.failure)}</span></li>`;
    }
    const width = (100 * time / longest).toFixed(1);
    return `<li style="--color: var(--${transport.toLowerCase()})">${link}` +
      `<span class="bar"><i style="width: ${width}%"></i></span>` +
      `<span class="time">${formatTime(time)}</span></li>`;
  });
  return `<article>
<h2>${escape(example.action)}</h2>
<p class="quiet">${escape(example.about)} <code>examples/${escape(example.name)}.ts</code></p>
<ul>
${rows.join("\n")}
</ul>
</article>
`;
}

/** Returns the end of the page. */
export function pageEnd(): string {
  return `</main>
<footer>
<p>Times are the median of three requests after a first one, in this process: from the gateway to the app and back.
Load the page again to measure again.</p>
</footer>
</body>
</html>
`;
}

function formatTime(milliseconds: number): string {
  return `${milliseconds.toFixed(milliseconds < 9.95 ? 1 : 0)} ms`;
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
