import { cgiFolder, type ConfigOptions } from "./options.ts";

/** A configuration of Tomcat, whose CGIServlet runs scripts. */
export function tomcat({ app, listen }: ConfigOptions): string {
  const { root, folder } = cgiFolder({ app });
  const connector = listen?.transport === "tcp"
    ? `\n     <Connector port="${listen.port}" address="${listen.hostname}" protocol="HTTP/1.1"/> of server.xml listens.`
    : "\n     It listens where the Connector of its server.xml says, by default on port 8080.";
  return `<!-- /etc/tomcat10/Catalina/localhost/ROOT.xml, of Tomcat 10. Tomcat checks it when it starts:
       systemctl restart tomcat10
     The app is an executable CGI script:
       ${app}${connector}
     It sends all other files of the folder as they are, and nothing of WEB-INF. -->
<Context docBase="${root}" privileged="true"/>

<!-- ${root}/WEB-INF/web.xml
     Tomcat passes no chunked body on, responds with 500 to a body of another method than POST and with 400 to a path with
     %2F, and sends a page of its own in place of an error that the script responds with. -->
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  <servlet>
    <servlet-name>cgi</servlet-name>
    <servlet-class>org.apache.catalina.servlets.CGIServlet</servlet-class>
    <!-- Run the script itself, by its first line. -->
    <init-param><param-name>executable</param-name><param-value></param-value></init-param>
    <init-param><param-name>cgiPathPrefix</param-name><param-value>${
    folder.slice(root.length + 1)
  }</param-value></init-param>
    <init-param><param-name>cgiMethods</param-name><param-value>*</param-value></init-param>
    <!-- By itself Tomcat passes on a few header fields, and no PATH. -->
    <init-param><param-name>envHttpHeaders</param-name><param-value>.*</param-value></init-param>
    <init-param><param-name>environment-variable-PATH</param-name><param-value>/usr/local/bin:/usr/bin:/bin</param-value></init-param>
    <init-param><param-name>environment-variable-DENO_DIR</param-name><param-value>/var/cache/deno</param-value></init-param>
  </servlet>
  <servlet-mapping><servlet-name>cgi</servlet-name><url-pattern>/cgi-bin/*</url-pattern></servlet-mapping>
</web-app>
`;
}
