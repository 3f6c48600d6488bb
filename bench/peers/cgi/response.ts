// The least that a script on Deno needs to respond.
new Response("");
console.log("Status: 200 OK\nContent-Type: text/plain\n\nHello, world");
