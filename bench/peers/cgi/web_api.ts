// Bare Deno with a Request and a Response, which any adapter has to load.
const request = new Request(`http://${Deno.env.get("HTTP_HOST")}${Deno.env.get("REQUEST_URI")}`);
const response = new Response(request.url && "Hello, world");
const body = await response.text();
console.log(`Status: ${response.status} OK\nContent-Type: text/plain\n\n${body}`);
