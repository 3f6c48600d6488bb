import { requestField } from "../io/private_fields.ts";

/** The fields that may change the URL of a request. If one of the first two is present, the others do not. */
const FORWARDED: ReadonlyArray<[field: string, variable: string]> = [
  ["x-forwarded-proto", "HTTP_X_FORWARDED_PROTO"],
  ["x-forwarded-host", "HTTP_X_FORWARDED_HOST"],
  ["x-forwarded-for", "HTTP_X_FORWARDED_FOR"],
  ["forwarded", "HTTP_FORWARDED"],
];

/**
 * Returns those of the variables that `requestURL()` and `trustedForwarded()` read for an ordinary request of
 * `Deno.serve`, which cost less than all. Returns undefined if the request is not ordinary.
 *
 * @param host The Host of the request.
 * @param forwarded Whether the fields of proxies are read.
 */
export function createURLVariables(
  request: Request,
  host: string | null,
  forwarded: boolean,
): [name: string, value: string][] | undefined {
  const { url } = request;
  const authority = url.indexOf("://") + 3;
  const path = url.indexOf("/", authority);
  const scheme = url.slice(0, authority - 3);
  if (!/^https?$/.test(scheme) || path < 0 || url.includes("#") || host === null) return undefined;
  const query = url.indexOf("?", path);
  const variables: [string, string][] = [
    ["REQUEST_SCHEME", scheme],
    ["REQUEST_URI", url.slice(path)],
    ["QUERY_STRING", query < 0 ? "" : url.slice(query + 1)],
    ["HTTP_HOST", host],
  ];
  if (!forwarded) return variables;
  const ordinary = variables.length;
  for (const [field, variable] of FORWARDED) {
    if (field === "x-forwarded-for" && variables.length > ordinary) break;
    const value = requestField(request, field);
    if (value !== null) variables.push([variable, value]);
  }
  return variables;
}
