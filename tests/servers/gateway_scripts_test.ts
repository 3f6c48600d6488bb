/** CGI scripts in several languages, fcgiwrap, and Go's FastCGI server behind the gateways. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { cgiGateway, fastCGIGateway } from "../../gateway.ts";
import { request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { eventually, type Rig, Suite } from "./harness.ts";

/** Scripts that respond with parts of their request: method, path, query, form field "name", body or its SHA-256. */
const SCRIPTS: Record<string, string> = {
  "shell.cgi": `#!/bin/sh
echo "Content-Type: text/plain"
echo
printf '%s %s %s ' "$REQUEST_METHOD" "$PATH_INFO" "$QUERY_STRING"
cat
`,
  "perl.cgi": `#!/usr/bin/perl
use strict; use CGI; use Digest::SHA;
my $q = CGI->new;
print $q->header(-type => "text/plain", -charset => "utf-8", -cookie => [
  $q->cookie(-name => "a", -value => "1"), $q->cookie(-name => "b", -value => "2")]);
my $file = $q->upload("file");
my $sum = $file ? Digest::SHA->new(256)->addfile($file)->hexdigest : "";
print join " ", $q->request_method, $q->path_info, scalar($q->param("name")) // "", $sum;
`,
  "python.cgi": `#!/usr/bin/env -S python3 -W ignore
import os, sys, hashlib
length = int(os.environ.get("CONTENT_LENGTH") or 0)
body = sys.stdin.buffer.read(length)
sys.stdout.write("Content-Type: text/plain\\nStatus: 201 Made\\n\\n")
print(os.environ["REQUEST_METHOD"], os.environ["PATH_INFO"], len(body), hashlib.sha256(body).hexdigest(), end="")
`,
  "nph-shell.cgi": `#!/bin/sh
printf 'HTTP/1.1 418 Teapot\\r\\nContent-Type: text/plain\\r\\nX-Own: yes\\r\\n\\r\\nshort and stout'
`,
};

const C = `#include <stdio.h>
#include <stdlib.h>
int main(void) {
  char *length = getenv("CONTENT_LENGTH");
  long left = length && *length ? atol(length) : 0, sum = 0;
  while (left-- > 0) { int c = getchar(); if (c == EOF) return 1; sum += c; }
  printf("Content-Type: text/plain\\r\\n\\r\\n%s %s %ld", getenv("REQUEST_METHOD"), getenv("PATH_INFO"), sum);
  return 0;
}
`;

const GO = `package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/fcgi"
	"os"
)

func handle(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	length, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	w.Header().Set("X-URL", r.URL.String())
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("X-Agent", r.UserAgent())
	fmt.Fprintf(w, "%s %d %x", r.Method, length, sum.Sum(nil))
}

func main() {
	http.HandleFunc("/", handle)
	if len(os.Args) < 2 {
		if err := cgi.Serve(nil); err != nil {
			panic(err)
		}
		return
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	panic(fcgi.Serve(listener, nil))
}
`;

function build(command: string, args: string[], rig: Rig): void {
  const { success, stderr } = new Deno.Command(command, {
    args,
    // With CGO_ENABLED=0 Go would compile its own library first.
    env: { GOCACHE: `${rig.dir}/go`, GO111MODULE: "off", CGO_ENABLED: "1" },
  }).outputSync();
  assert(success, new TextDecoder().decode(stderr));
}

function writeScripts(rig: Rig): void {
  for (const [name, text] of Object.entries(SCRIPTS)) {
    Deno.chmodSync(rig.write(`cgi-bin/${name}`, text), 0o755);
  }
  Deno.chmodSync(`${rig.dir}/cgi-bin`, 0o755);
}

const scripts = new Suite("gateway: scripts", {
  perl: "perl",
  "/usr/share/perl5/CGI.pm": "libcgi-pm-perl",
  python3: "python3",
  gcc: "gcc",
  fcgiwrap: "fcgiwrap",
}, async (rig) => {
  writeScripts(rig);
  build("gcc", ["-o", `${rig.dir}/cgi-bin/c.cgi`, rig.write("main.c", C)], rig);
  const socket = `${rig.dir}/fcgiwrap.sock`;
  rig.spawn("fcgiwrap", "fcgiwrap", ["-f", "-c", "2", "-s", `unix:${socket}`]);
  await eventually("fcgiwrap listens", () => Deno.statSync(rig.dir) && exists(socket));
  const log = () => {};
  return {
    cgi: serve(cgiGateway({ root: `${rig.dir}/cgi-bin`, basePath: "/cgi-bin", log })),
    fcgiwrap: serve(
      fastCGIGateway(`unix:${socket}`, {
        root: `${rig.dir}/cgi-bin`,
        basePath: "/cgi-bin",
        split: [".cgi"],
        log,
      }),
    ),
  };
});

const go = new Suite("gateway: Go", { go: "golang-go", gcc: "gcc" }, async (rig) => {
  const program = `${rig.dir}/cgi-bin/go.cgi`;
  build("go", ["build", "-o", program, rig.write("go/main.go", GO)], rig);
  Deno.chmodSync(`${rig.dir}/cgi-bin`, 0o755);
  const socket = `${rig.dir}/go.sock`;
  rig.spawn("Go's FastCGI child", program, [socket]);
  await eventually("Go listens", () => exists(socket));
  return {
    cgi: serve(cgiGateway({ script: program })),
    fastcgi: serve(fastCGIGateway(`unix:${socket}`)),
  };
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

for (const way of ["cgi", "fcgiwrap"] as const) {
  const test = (name: string, run: (host: string) => Promise<void>) =>
    scripts.test(`${way}: ${name}`, (started) => run(started[way]));

  test("sh reads the request", async (host) => {
    const body = new TextEncoder().encode("the body");
    const { text } = await request(host, "POST", "/cgi-bin/shell.cgi/p%20i?q=1", { body });
    assertEquals(text, "POST /p i q=1 the body");
  });

  test("Perl with CGI.pm reads a form and an upload, and sets cookies", async (host) => {
    const url = `http://${host}/cgi-bin/perl.cgi/info`;
    const text = await fetch(url, { method: "POST", body: new URLSearchParams({ name: "a&b" }) });
    assertEquals(await text.text(), "POST /info a&b ");
    const form = new FormData();
    const file = crypto.getRandomValues(new Uint8Array(60_000));
    form.set("name", "up");
    form.set("file", new Blob([file]), "file.bin");
    const response = await fetch(url, { method: "POST", body: form });
    assertEquals(response.headers.getSetCookie(), ["a=1; path=/", "b=2; path=/"]);
    assertEquals(await response.text(), `POST /info up ${await sha256(file)}`);
  });

  test("Python reads 5 MB and sets a status", async (host) => {
    const body = new Uint8Array(5_000_000).fill(7);
    const response = await request(host, "PUT", "/cgi-bin/python.cgi/x", { body });
    assertEquals([response.status, response.text], [201, `PUT /x 5000000 ${await sha256(body)}`]);
  });

  test("C reads the body", async (host) => {
    const body = new Uint8Array(1000).fill(3);
    const { text } = await request(host, "POST", "/cgi-bin/c.cgi/a", { body });
    assertEquals(text, "POST /a 3000");
  });

  test("a missing script returns 404", async (host) => {
    assertEquals((await request(host, "GET", "/cgi-bin/none.cgi")).status, 404);
  });
}

scripts.test("a non-parsed-header script sends its own status line and headers", async ({ cgi }) => {
  const { status, head, text } = await request(cgi, "GET", "/cgi-bin/nph-shell.cgi");
  assertEquals([status, head.get("x-own"), text], [418, "yes", "short and stout"]);
});

for (const way of ["cgi", "fastcgi"] as const) {
  go.test(`${way}: Go reads the request`, async (started) => {
    const body = crypto.getRandomValues(new Uint8Array(50_000));
    const response = await request(started[way], "POST", "/a%20b/%C3%A4?x=1&y=%2F", {
      body,
      fields: [["User-Agent", "test"]],
    });
    assertEquals(response.text, `POST 50000 ${await sha256(body)}`);
    assertEquals(response.head.get("x-agent"), "test");
    assertEquals(response.head.get("x-host"), started[way]);
    assertStringIncludes(response.head.get("x-url")!, "/a%20b/%C3%A4?x=1&y=%2F");
  });
}

go.test("fastcgi: Go serves many requests over kept connections", async ({ fastcgi }) => {
  for (let i = 0; i < 50; i++) {
    const responses = await Promise.all(
      Array.from({ length: 6 }, (_, n) => request(fastcgi, n % 2 ? "GET" : "DELETE", `/${n}`)),
    );
    assertEquals(responses.map(({ text }) => text.split(" ")[0]), [
      "DELETE",
      "GET",
      "DELETE",
      "GET",
      "DELETE",
      "GET",
    ]);
  }
});
