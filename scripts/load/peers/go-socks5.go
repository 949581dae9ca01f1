// The smallest server that the go-socks5 library makes. Its one argument is where to listen.
package main

import (
	"io"
	"log"
	"os"

	"github.com/armon/go-socks5"
)

func main() {
	server, err := socks5.New(&socks5.Config{Logger: log.New(io.Discard, "", 0)})
	if err == nil {
		err = server.ListenAndServe("tcp", os.Args[1])
	}
	log.Fatal(err)
}
