package main

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cairn-backup/cairn/httpapi"
)

// metrics are the figures of a server, for Prometheus.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	took      *prometheus.HistogramVec
	jobs      *prometheus.CounterVec
	jobTook   *prometheus.HistogramVec
	lastTime  *prometheus.GaugeVec
	lastBytes prometheus.Gauge
	steps     *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_requests_total", Help: "Requests that were answered.",
		}, []string{"method", "route", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cairn_request_duration_seconds", Help: "How long answers took; streamed ones and those that wait for a job as long as that.",
			Buckets: []float64{.0005, .001, .005, .01, .05, .1, .5, 1, 5, 30, 120, 600, 3600},
		}, []string{"route"}),
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_jobs_total", Help: "Jobs that ended, by their last state.",
		}, []string{"kind", "state"}),
		jobTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cairn_job_duration_seconds", Help: "How long jobs took.",
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400},
		}, []string{"kind"}),
		lastTime: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cairn_last_completed_timestamp_seconds", Help: "When the last job of this process was completed.",
		}, []string{"kind"}),
		lastBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cairn_last_backup_bytes", Help: "What a restore of the last backup of this process writes.",
		}),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_scheduled_total", Help: "Steps of the schedule, by their outcome.",
		}, []string{"step", "outcome"}),
	}
	m.registry.MustRegister(m.requests, m.took, m.jobs, m.jobTook, m.lastTime, m.lastBytes, m.steps,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is read from the server.
func (m *metrics) watch(server *httpapi.Server) {
	running := func(kind string, count func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_jobs_running", Help: "Jobs that run.", ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count()) })
	}
	m.registry.MustRegister(
		running("creation", func() int { n, _ := server.Running(); return n }),
		running("restoration", func() int { _, n := server.Running(); return n }),
	)
}

// handler serves the figures.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// request counts a request. Its labels are never what a client made up.
func (m *metrics) request(r httpapi.RequestReport) {
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(method, r.Route, strconv.Itoa(r.Code)).Inc()
	m.took.WithLabelValues(r.Route).Observe(r.Duration.Seconds())
}

// job counts a job that ended.
func (m *metrics) job(r httpapi.JobReport) {
	kind := "creation"
	if r.Restore {
		kind = "restoration"
	}
	m.jobs.WithLabelValues(kind, r.State).Inc()
	m.jobTook.WithLabelValues(kind).Observe(r.Duration.Seconds())
	if r.State != "COMPLETED" {
		return
	}
	m.lastTime.WithLabelValues(kind).SetToCurrentTime()
	if !r.Restore {
		m.lastBytes.Set(float64(r.Bytes))
	}
}
