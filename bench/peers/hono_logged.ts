/** The same with an access log, for `deno serve`: the members of Gatehouse's, each request written at once. */
import app from "./hono.ts";

export default {
  async fetch(request, info) {
    const started = new Date();
    const from = performance.now();
    const response = await app.fetch(request);
    const { headers } = request;
    const forwarded = headers.get("x-forwarded-for")?.split(",").at(-1)?.trim();
    console.log(JSON.stringify({
      time: started.toISOString(),
      remote: forwarded ?? (info.remoteAddr as Deno.NetAddr).hostname,
      method: request.method,
      url: request.url,
      status: response.status,
      milliseconds: Math.round((performance.now() - from) * 10) / 10,
      referrer: headers.get("referer") ?? undefined,
      agent: headers.get("user-agent") ?? undefined,
      requestId: headers.get("x-request-id") ?? crypto.randomUUID(),
    }));
    return response;
  },
} satisfies Deno.ServeDefaultExport;
