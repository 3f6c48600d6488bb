// Go's net/http/fcgi.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"strconv"
	"time"
)

var chunk = make([]byte, 65536)

func answer(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain")
	switch r.URL.Path {
	case "/headers":
		length := 0
		for name, values := range r.Header {
			for _, value := range values {
				length += len(name) + len(value)
			}
		}
		for i := 1; i <= 19; i++ {
			header.Set("X-Field-"+strconv.Itoa(i), "the value of header "+strconv.Itoa(i))
		}
		for i := 1; i <= 3; i++ {
			header.Add("Set-Cookie", "c"+strconv.Itoa(i)+"=0123456789abcdef; Path=/")
		}
		io.WriteString(w, strconv.FormatBool(length > 900))
	case "/echo":
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	case "/upload":
		length, _ := io.Copy(io.Discard, r.Body)
		io.WriteString(w, strconv.FormatInt(length, 10))
	case "/download":
		left, _ := strconv.Atoi(r.URL.Query().Get("bytes"))
		for ; left > len(chunk); left -= len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		w.Write(chunk[:left])
	case "/events":
		header.Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			time.Sleep(100 * time.Millisecond)
			if _, err := fmt.Fprintf(w, "data: %d ~\n\n", i); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	default:
		io.WriteString(w, "Hello, world")
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fcgi.Serve(listener, http.HandlerFunc(answer))
}
