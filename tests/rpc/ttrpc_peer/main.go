// Command ttrpc_peer is the other end of tests/rpc/test_ttrpc_peer.py: a server or a client by containerd's module.
//
//	ttrpc_peer serve SOCKET
//	ttrpc_peer call SOCKET
//
// The service is test.Echo; all messages are google.protobuf.StringValue. A client prints one JSON object of outcomes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "test.Echo"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: ttrpc_peer serve|call SOCKET")
	}
	switch arguments[0] {
	case "serve":
		return serve(arguments[1])
	case "call":
		return call(arguments[1])
	}
	return fmt.Errorf("unknown command %q", arguments[0])
}

func serve(path string) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{"Echo": echo},
		Streams: map[string]ttrpc.Stream{
			"Count": {Handler: count, StreamingServer: true},
			"Join":  {Handler: join, StreamingClient: true},
			"Chat":  {Handler: chat, StreamingClient: true, StreamingServer: true},
		},
	})
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return server.Serve(context.Background(), listener)
}

// echo answers with the text; with a status, a key's value or the time left if the text begins with such a command.
func echo(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
	var request wrapperspb.StringValue
	if err := unmarshal(&request); err != nil {
		return nil, err
	}
	command, argument, _ := strings.Cut(request.Value, " ")
	switch command {
	case "fail":
		return nil, status.Error(codes.NotFound, argument)
	case "metadata":
		value, _ := ttrpc.GetMetadataValue(ctx, argument)
		return wrapperspb.String(value), nil
	case "left":
		deadline, ok := ctx.Deadline()
		if !ok {
			return wrapperspb.String(""), nil
		}
		return wrapperspb.String(strconv.FormatInt(time.Until(deadline).Milliseconds(), 10)), nil
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &request, nil
}

// count streams the numbers below the one it was sent, or one number and an error.
func count(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	var request wrapperspb.StringValue
	if err := stream.RecvMsg(&request); err != nil {
		return nil, err
	}
	if request.Value == "fail" {
		if err := stream.SendMsg(wrapperspb.String("0")); err != nil {
			return nil, err
		}
		return nil, status.Error(codes.DataLoss, "after one")
	}
	end, err := strconv.Atoi(request.Value)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	for number := range end {
		if err := stream.SendMsg(wrapperspb.String(strconv.Itoa(number))); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// join answers with all texts it was sent, joined.
func join(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	var texts []string
	for {
		var request wrapperspb.StringValue
		err := stream.RecvMsg(&request)
		if errors.Is(err, io.EOF) {
			return wrapperspb.String(strings.Join(texts, " ")), nil
		}
		if err != nil {
			return nil, err
		}
		texts = append(texts, request.Value)
	}
}

// chat answers each text with itself, in capitals.
func chat(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	for {
		var request wrapperspb.StringValue
		err := stream.RecvMsg(&request)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if err := stream.SendMsg(wrapperspb.String(strings.ToUpper(request.Value))); err != nil {
			return nil, err
		}
	}
}

// outcome is what came of a call: the messages, and the status of an error.
type outcome struct {
	Values  []string `json:"values"`
	Code    string   `json:"code"`
	Message string   `json:"message"`
}

func call(path string) error {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(connection)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	outcomes := map[string]outcome{
		"unary":    unary(ctx, client, "Echo", "hello"),
		"large":    unary(ctx, client, "Echo", strings.Repeat("x", 3<<20)),
		"error":    unary(ctx, client, "Echo", "fail as asked"),
		"unknown":  unary(ctx, client, "Nothing", ""),
		"left":     unary(ctx, client, "Echo", "left"),
		"empty":    unary(ctx, client, "Echo", ""),
		"stream":   receive(ctx, client, "300"),
		"failing":  receive(ctx, client, "fail"),
		"upload":   upload(ctx, client),
		"both":     both(ctx, client),
		"metadata": unary(ttrpc.WithMetadata(ctx, ttrpc.MD{"x-key": {"value"}}), client, "Echo", "metadata x-key"),
	}
	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	outcomes["deadline"] = unary(short, client, "Echo", "wait")
	outcomes["after"] = unary(ctx, client, "Echo", "still here")
	return json.NewEncoder(os.Stdout).Encode(outcomes)
}

func ended(values []string, err error) outcome {
	if errors.Is(err, context.DeadlineExceeded) {
		return outcome{values, codes.DeadlineExceeded.String(), err.Error()}
	}
	return outcome{values, status.Code(err).String(), status.Convert(err).Message()}
}

func unary(ctx context.Context, client *ttrpc.Client, method, text string) outcome {
	var response wrapperspb.StringValue
	err := client.Call(ctx, service, method, wrapperspb.String(text), &response)
	return ended([]string{response.Value}, err)
}

// values reads a stream to its end.
func values(stream ttrpc.ClientStream) ([]string, error) {
	found := []string{}
	for {
		var response wrapperspb.StringValue
		err := stream.RecvMsg(&response)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found = append(found, response.Value)
	}
}

func receive(ctx context.Context, client *ttrpc.Client, text string) outcome {
	described := &ttrpc.StreamDesc{StreamingServer: true}
	stream, err := client.NewStream(ctx, described, service, "Count", wrapperspb.String(text))
	if err != nil {
		return ended(nil, err)
	}
	return ended(values(stream))
}

func upload(ctx context.Context, client *ttrpc.Client) outcome {
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, service, "Join", nil)
	if err != nil {
		return ended(nil, err)
	}
	for _, text := range []string{"one", "", "two"} {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
			return ended(nil, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return ended(nil, err)
	}
	var response wrapperspb.StringValue
	err = stream.RecvMsg(&response)
	return ended([]string{response.Value}, err)
}

func both(ctx context.Context, client *ttrpc.Client) outcome {
	described := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
	stream, err := client.NewStream(ctx, described, service, "Chat", nil)
	if err != nil {
		return ended(nil, err)
	}
	found := []string{}
	for _, text := range []string{"one", "two"} {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
			return ended(found, err)
		}
		var response wrapperspb.StringValue
		if err := stream.RecvMsg(&response); err != nil {
			return ended(found, err)
		}
		found = append(found, response.Value)
	}
	if err := stream.CloseSend(); err != nil {
		return ended(found, err)
	}
	rest, err := values(stream)
	return ended(append(found, rest...), err)
}
