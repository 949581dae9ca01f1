// The smallest server that the goproxy library makes. Its one argument is where to listen.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/elazarl/goproxy"
)

func main() {
	log.Fatal(http.ListenAndServe(os.Args[1], goproxy.NewProxyHttpServer()))
}
