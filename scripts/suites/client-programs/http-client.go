// Go's own HTTP client through the proxy that the environment names.
//
// http-client URL BLOB fetches URL/blob and sends the file BLOB to URL/, chunked, says `same` when both arrived
// unchanged, and fails otherwise.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	url, path := os.Args[1], os.Args[2]
	blob, err := os.ReadFile(path)
	check(err)
	client := http.Client{Timeout: 20 * time.Second}
	came := body(client.Get(url + "/blob"))
	// What is no more than a Reader has no length that is known.
	sent := io.MultiReader(bytes.NewReader(blob))
	digest := body(client.Post(url+"/", "application/octet-stream", sent))
	if !bytes.Equal(came, blob) || string(digest) != fmt.Sprintf("%x", sha256.Sum256(blob)) {
		check(fmt.Errorf("what arrived differs from what was sent"))
	}
	fmt.Println("same")
}

func body(answer *http.Response, err error) []byte {
	check(err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		check(fmt.Errorf("%s", answer.Status))
	}
	content, err := io.ReadAll(answer.Body)
	check(err)
	return content
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
