// Command crowd asks for one file with many clients at the same time, each on a connection of its own, or waits for the first
// answer of a server that it starts.
//
// Usage: crowd CLIENTS URL prints the seconds until the last client has all of it, and until the first has.
// crowd start URL COMMAND... prints the milliseconds from the start of the command to the first 200, and ends the command.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 3 && os.Args[1] == "start" {
		start(os.Args[2], os.Args[3:])
		return
	}
	if len(os.Args) != 3 {
		log.Fatal("usage: crowd CLIENTS URL | crowd start URL COMMAND...")
	}
	clients, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	crowd(clients, os.Args[2])
}

// crowd opens all connections before its clock starts, and gives the server the time to accept them: what is compared is how long
// it takes from the questions to the answers.
func crowd(clients int, address string) {
	at, err := url.Parse(address)
	if err != nil {
		log.Fatal(err)
	}
	connections := make([]net.Conn, clients)
	for i := range connections {
		if connections[i], err = net.Dial("tcp", at.Host); err != nil {
			log.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	request := []byte("GET " + at.EscapedPath() + " HTTP/1.1\r\nHost: " + at.Host + "\r\n\r\n")
	begin, took := time.Now(), make([]time.Duration, clients)
	var all sync.WaitGroup
	for i, connection := range connections {
		all.Go(func() {
			if err := ask(connection, request); err != nil {
				log.Fatalf("%s: %v", address, err)
			}
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	fmt.Printf("%.4f %.4f\n", slices.Max(took).Seconds(), slices.Min(took).Seconds())
}

// ask reads a whole answer.
func ask(connection net.Conn, request []byte) error {
	if _, err := connection.Write(request); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return err
	}
	return read(response)
}

// read reads a whole body.
func read(response *http.Response) error {
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err := io.Copy(io.Discard, response.Body)
	return err
}

// get reads a whole body over a new connection.
func get(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	return read(response)
}

func start(url string, command []string) {
	server := exec.Command(command[0], command[1:]...)
	begin := time.Now()
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	for get(url) != nil {
		if time.Since(begin) > 30*time.Second {
			log.Fatalf("%s: no 200 in 30 s", url)
		}
		time.Sleep(500 * time.Microsecond)
	}
	fmt.Printf("%.1f\n", float64(time.Since(begin).Microseconds())/1000)
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		log.Fatal(err)
	}
	server.Wait() // by the signal
}
