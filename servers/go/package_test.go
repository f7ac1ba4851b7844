package ssegateway

// The module, as a proxy would serve it, in an empty project, with every example of its README.

import (
	"archive/zip"
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "example.com/sse-gateway/servers/go"

// Written by .ci/project.
const version = "v0.1.0"

// examplesMain runs the examples that are functions.
const examplesMain = `package main

func main() {
	ctx := context.Background()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	secret := []byte(os.Getenv("TICKET_SECRET"))
	sse, err := ssegateway.New(ssegateway.Options{Redis: rdb, Secret: secret})
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	tickets(sse)(w, nil)
	fmt.Print(w.Body)
	if err := publish(ctx, sse); err != nil {
		panic(err)
	}
	publishReport(ctx, sse)
	cluster, err := onCluster()
	if err != nil {
		panic(err)
	}
	id, err := cluster.PublishToUser(ctx, "42", "a", 1)
	fmt.Println("on the cluster:", id, err)
	panic(work(ctx, sse))
}
`

const examplesImports = `
import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	ssegateway "example.com/sse-gateway/servers/go"
	"github.com/redis/go-redis/v9"
)
`

// blocks are the blocks of the README: the commands, and the examples.
func blocks(t *testing.T) (commands string, examples []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	must(t, err)
	block := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	languages := ""
	for _, match := range block.FindAllStringSubmatch(string(readme), -1) {
		languages += match[1] + " "
		if match[1] == "go" {
			examples = append(examples, match[2])
		} else {
			commands += match[2]
		}
	}
	if languages != "go sh go go go go go " {
		t.Fatalf("unknown blocks: %s", languages)
	}
	return commands, examples
}

// proxy writes the module in the form of a module proxy, and returns its URL.
func proxy(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	versions := filepath.Join(folder, module, "@v")
	must(t, os.MkdirAll(versions, 0o755))
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(versions, name), []byte(text), 0o644))
	}
	mod, err := os.ReadFile("go.mod")
	must(t, err)
	write("list", version+"\n")
	write(version+".info", `{"Version":"`+version+`"}`)
	write(version+".mod", string(mod))
	archive, err := os.Create(filepath.Join(versions, version+".zip"))
	must(t, err)
	defer archive.Close()
	writer := zip.NewWriter(archive)
	files, err := filepath.Glob("*")
	must(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		entry, err := writer.Create(module + "@" + version + "/" + name)
		must(t, err)
		_, err = entry.Write(text)
		must(t, err)
	}
	must(t, writer.Close())
	return "file://" + folder
}

func run(t *testing.T, folder string, env []string, command ...string) string {
	t.Helper()
	program := exec.Command(command[0], command[1:]...)
	program.Dir, program.Env = folder, append(os.Environ(), env...)
	output, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, output)
	}
	return string(output)
}

// local adapts code to the servers of the tests.
func local(code string) string {
	return strings.NewReplacer(
		"127.0.0.1:6379", strings.TrimPrefix(os.Getenv("SSE_TEST_REDIS"), "redis://"),
		"127.0.0.1:7000", strings.SplitN(os.Getenv("SSE_TEST_CLUSTER"), ",", 2)[0],
		"30*time.Second", "time.Second",
	).Replace(code)
}

// build builds a program in an empty project, without the network. setUp: commands that make the
// module available.
func build(t *testing.T, proxies, code, setUp string) string {
	t.Helper()
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(local(code)), 0o644))
	env := []string{
		"GOPROXY=" + proxies + ",off", "GONOSUMDB=*", "GOFLAGS=-mod=mod -modcacherw",
	}
	commands := "go mod init application\n" + setUp + "\ngo build -o application ."
	run(t, folder, env, "sh", "-ec", commands)
	return filepath.Join(folder, "application")
}

// download downloads all modules, those of the tests of other modules, too, which `go mod tidy`
// wants. In a copy, because it adds lines to go.sum. Returns the folder of the downloads.
func download(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	run(t, ".", nil, "cp", "go.mod", "go.sum", folder)
	run(t, folder, nil, "go", "mod", "download", "all")
	return strings.TrimSpace(run(t, folder, nil, "go", "env", "GOMODCACHE"))
}

func TestReadmeRunsInAnEmptyProject(t *testing.T) {
	downloads := download(t)
	proxies := proxy(t) + ",file://" + downloads + "/cache/download"
	// A folder of its own, without the module: a stale version must not be used. It is always the
	// same one, so that the other modules are compiled once.
	modules := filepath.Join(os.Getenv("SSE_TEST_ROOT"), ".cache", "go-modules")
	must(t, os.RemoveAll(filepath.Join(modules, "example.com")))
	must(t, os.RemoveAll(filepath.Join(modules, "cache", "download", "example.com")))
	t.Setenv("GOMODCACHE", modules)
	commands, examples := blocks(t)

	require := "go mod edit -require " + module + "@" + version
	first := run(t, ".", nil, build(t, proxies, examples[0], require))
	ticket, published, _ := strings.Cut(strings.TrimSpace(first), " ")
	if !id.MatchString(published) {
		t.Fatal(first)
	}
	s := open(t, "SSE_TEST_GATEWAY", ticket)
	if topics := strings.Join(s.connected.Topics, " "); topics != "news team-*" {
		t.Fatal(topics)
	}
	s.response.Body.Close()

	rest := strings.Join(examples[1:], "\n")
	code := strings.Replace(examplesMain, "\n", examplesImports, 1) + rest
	here, err := filepath.Abs(".")
	must(t, err)
	commands = strings.Replace(commands, "=../servers/go", "="+here, 1)
	program := exec.Command(build(t, proxies, code, commands))
	output, err := program.StdoutPipe()
	must(t, err)
	program.Stderr = os.Stderr
	must(t, program.Start())
	defer program.Process.Kill()
	expected := []string{
		`{"ticket":"ey`, "too-large false", "on the cluster: 1", "email user:42:events shipped",
	}
	for lines := bufio.NewScanner(output); len(expected) > 0 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), expected[0]) {
			expected = expected[1:]
		}
	}
	if len(expected) > 0 {
		t.Fatalf("the examples did not print %q", expected[0])
	}
}
