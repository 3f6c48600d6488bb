// Go's net/http/cgi, as the web server's side of a CGI program.
package main

import (
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	err := http.ListenAndServe("127.0.0.1:"+os.Args[1], &cgi.Handler{Path: os.Args[2]})
	panic(err)
}
