package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The environment that asks for spans. OpenTelemetry's other variables say more: sampler, headers, certificates, batches.
var tracingAsked = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// spansWithin is how long the last spans may take at the end.
const spansWithin = 3 * time.Second

// spans gives what makes spans and sends them by OTLP over HTTP, nil where the environment names no place for them, and what ends
// it. What is wrong with the sending is logged and harms nothing else.
func (a *app) spans(log *slog.Logger) (provider trace.TracerProvider, end func(), err error) {
	none := func() {}
	where := ""
	for _, name := range tracingAsked {
		if where == "" {
			where = os.Getenv(name)
		}
	}
	if where == "" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, none, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if p := os.Getenv(name); p != "" && p != "http/protobuf" {
			return nil, none, usagef("%s=%s: spans are sent by http/protobuf alone (port 4318 as a rule)", name, p)
		}
	}
	exporter, err := otlptracehttp.New(a.ctx)
	if err != nil {
		return nil, none, usagef("spans by OTLP to %s: %w", where, err)
	}
	about, err := resource.New(a.ctx, resource.WithAttributes(attribute.String("service.name", "tidemark")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, none, usagef("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans are not sent", "cause", err) }))
	made := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	log.Info("sending spans", "to", where)
	return made, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), spansWithin)
		defer cancel()
		if err := made.Shutdown(ctx); err != nil {
			log.Warn("the last spans were not sent", "cause", err)
		}
	}, nil
}
