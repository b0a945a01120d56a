// Package handler implements the operations of the HTTP API. Each handler takes parameters that the
// generated code has bound and validated, calls one method of the store, of the evaluation service
// or of Datar, and maps the result to a generated model.
//
// The rules of flags, evaluation and counting are in those packages. This package contains the
// mapping in both directions, one table from errors to statuses, and the distribution of
// evaluations to the configured recorders.
package handler

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
	constraintapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/constraint"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
	distributionapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/distribution"
	evaluationapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/evaluation"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
	exposureapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/exposure"
	flagapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/flag"
	healthapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/health"
	recorderapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/recorder"
	segmentapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/segment"
	tagapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/tag"
	variantapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/variant"
)

// Store reads and changes flags. Its errors match entity.ErrInvalid, entity.ErrNotFound or
// entity.ErrDuplicateKey if the request is at fault. Their text is sent to the client.
type Store interface {
	FlagStore
	VariantStore
	SegmentStore
	ConstraintStore
	DistributionStore
	TagStore
	ExportStore
}

// Options are the dependencies of the handlers.
type Options struct {
	// Store is nil in eval-only mode. All operations on flags then return 501.
	Store Store
	// Eval is mandatory.
	Eval Evaluator
	// Snapshots provides the flags that evaluation uses, for their export. Mandatory.
	Snapshots eval.Source
	// States provides the same flags with their version, for the entity tag of the export. If it is
	// nil, the export has no tag.
	States States
	// Datar is nil when Datar is off. Its operations then return 503.
	Datar Datar
	// Fleet is nil when Datar is off.
	Fleet Fleet
	// Answers is nil when flags come from a JSON document. Tail is nil when the live tail is off.
	Answers *insight.Service
	Tail    *insight.Tail
	// Ingester is nil when the server does not accept counts from elsewhere. The operation then
	// returns 501.
	Ingester Ingester
	// RecorderStats returns the statistics of the streaming recorders. Nil means that there are no
	// such recorders.
	RecorderStats func() []recorder.Stats
	// MaxGetQueryBytes is the longest raw query of a GET evaluation. 0 means no limit.
	MaxGetQueryBytes int
	// InjectedContext is what the server adds to the context of evaluations. Nil adds nothing.
	InjectedContext *InjectedContext
	// Actor returns who sent a request, for createdBy and updatedBy. Nil means that all requests
	// are anonymous.
	Actor func(*http.Request) string
	// HealthChecks are the inputs of health and readiness.
	HealthChecks HealthChecks
	// Turns limits how many large bodies are decoded in parallel. Nil means no limit.
	Turns budget.Turns
	// BatchMemory is the memory of responses to batches of more than 16 KiB. Nil means no limit.
	BatchMemory *budget.Memory
	// Now is the clock of health and of the statistics of servers; nil means time.Now.
	Now func() time.Time
	// Logger logs server errors with their cause. Mandatory.
	Logger *slog.Logger
}

// Handler implements the operations of the API.
type Handler struct {
	files            exports        // of SQLite files
	documents        exports        // of JSON documents
	encoding         budget.Turns   // of the JSON document that is encoded
	filling          budget.Turns   // of the SQLite file that is filled
	turns            budget.Turns   // of large bodies
	batchMemory      *budget.Memory // of responses to batches
	store            Store
	eval             Evaluator
	snapshots        eval.Source
	states           States
	datar            Datar
	fleet            Fleet
	answers          *insight.Service
	tail             *insight.Tail
	ingester         Ingester
	recorderStats    func() []recorder.Stats
	maxGetQueryBytes int
	injected         *InjectedContext
	actor            func(*http.Request) string
	healthChecks     HealthChecks
	now              func() time.Time
	logger           *slog.Logger
}

// New returns a Handler.
func New(o Options) *Handler {
	actor := o.Actor
	if actor == nil {
		actor = func(*http.Request) string { return "" }
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return &Handler{
		files:            exports(budget.NewTurns(maxExports)),
		documents:        exports(budget.NewTurns(maxExports)),
		encoding:         budget.NewTurns(1),
		filling:          budget.NewTurns(1),
		turns:            o.Turns,
		batchMemory:      o.BatchMemory,
		store:            o.Store,
		eval:             o.Eval,
		snapshots:        o.Snapshots,
		states:           o.States,
		datar:            o.Datar,
		fleet:            o.Fleet,
		answers:          o.Answers,
		tail:             o.Tail,
		ingester:         o.Ingester,
		recorderStats:    o.RecorderStats,
		maxGetQueryBytes: o.MaxGetQueryBytes,
		injected:         o.InjectedContext,
		actor:            actor,
		healthChecks:     o.HealthChecks,
		now:              now,
		logger:           o.Logger,
	}
}

// Register registers every operation of the API and its consumers and producers.
func (h *Handler) Register(api *operations.FlagrAPI) {
	api.JSONConsumer = jsonConsumer(h.turns)
	api.RegisterConsumer(ndjsonMime, ndjsonConsumer(h.turns))
	api.ServeError = serveError

	api.HealthGetHealthHandler = healthapi.GetHealthHandlerFunc(h.GetHealth)
	api.HealthGetReadyHandler = healthapi.GetReadyHandlerFunc(h.GetReady)

	api.EvaluationGetEvaluationHandler = evaluationapi.GetEvaluationHandlerFunc(h.GetEvaluation)
	api.EvaluationPostEvaluationHandler = evaluationapi.PostEvaluationHandlerFunc(h.PostEvaluation)
	api.EvaluationGetEvaluationBatchHandler = evaluationapi.GetEvaluationBatchHandlerFunc(h.GetEvaluationBatch)
	api.EvaluationPostEvaluationBatchHandler = evaluationapi.PostEvaluationBatchHandlerFunc(h.PostEvaluationBatch)

	api.ExposurePostExposuresHandler = exposureapi.PostExposuresHandlerFunc(withStore(h, h.PostExposures))

	api.ExportGetExportEvalCacheJSONHandler = exportapi.GetExportEvalCacheJSONHandlerFunc(h.GetExportEvalCacheJSON)
	api.ExportGetExportSqliteHandler = exportapi.GetExportSqliteHandlerFunc(withStore(h, h.GetExportSqlite))

	api.DatarGetDatarSummaryHandler = datarapi.GetDatarSummaryHandlerFunc(h.GetDatarSummary)
	api.DatarGetDatarFlagSummaryHandler = datarapi.GetDatarFlagSummaryHandlerFunc(h.GetDatarFlagSummary)
	api.RecorderGetRecordersStatusHandler = recorderapi.GetRecordersStatusHandlerFunc(h.GetRecordersStatus)

	h.registerAnswers(api)
	api.DatarPostDatarEvaluationsHandler = datarapi.PostDatarEvaluationsHandlerFunc(h.PostDatarEvaluations)
	api.DatarGetDatarFleetHandler = datarapi.GetDatarFleetHandlerFunc(h.GetDatarFleet)
	api.DatarGetDatarStatusHandler = datarapi.GetDatarStatusHandlerFunc(h.GetDatarStatus)

	api.FlagFindFlagsHandler = flagapi.FindFlagsHandlerFunc(withStore(h, h.FindFlags))
	api.FlagCreateFlagHandler = flagapi.CreateFlagHandlerFunc(withStore(h, h.CreateFlag))
	api.FlagGetFlagHandler = flagapi.GetFlagHandlerFunc(withStore(h, h.GetFlag))
	api.FlagPutFlagHandler = flagapi.PutFlagHandlerFunc(withStore(h, h.PutFlag))
	api.FlagDeleteFlagHandler = flagapi.DeleteFlagHandlerFunc(withStore(h, h.DeleteFlag))
	api.FlagRestoreFlagHandler = flagapi.RestoreFlagHandlerFunc(withStore(h, h.RestoreFlag))
	api.FlagDuplicateFlagHandler = flagapi.DuplicateFlagHandlerFunc(withStore(h, h.DuplicateFlag))
	api.FlagGetFlagDefinitionHandler = flagapi.GetFlagDefinitionHandlerFunc(withStore(h, h.GetFlagDefinition))
	api.FlagPutFlagDefinitionHandler = flagapi.PutFlagDefinitionHandlerFunc(withStore(h, h.PutFlagDefinition))
	api.FlagSetFlagEnabledHandler = flagapi.SetFlagEnabledHandlerFunc(withStore(h, h.SetFlagEnabled))
	api.FlagGetFlagSnapshotsHandler = flagapi.GetFlagSnapshotsHandlerFunc(withStore(h, h.GetFlagSnapshots))
	api.FlagGetFlagSnapshotMaxIDHandler = flagapi.GetFlagSnapshotMaxIDHandlerFunc(withStore(h, h.GetFlagSnapshotMaxID))
	api.FlagGetFlagEntityTypesHandler = flagapi.GetFlagEntityTypesHandlerFunc(withStore(h, h.GetFlagEntityTypes))

	api.TagFindAllTagsHandler = tagapi.FindAllTagsHandlerFunc(withStore(h, h.FindAllTags))
	api.TagFindTagsHandler = tagapi.FindTagsHandlerFunc(withStore(h, h.FindTags))
	api.TagCreateTagHandler = tagapi.CreateTagHandlerFunc(withStore(h, h.CreateTag))
	api.TagDeleteTagHandler = tagapi.DeleteTagHandlerFunc(withStore(h, h.DeleteTag))

	api.VariantFindVariantsHandler = variantapi.FindVariantsHandlerFunc(withStore(h, h.FindVariants))
	api.VariantCreateVariantHandler = variantapi.CreateVariantHandlerFunc(withStore(h, h.CreateVariant))
	api.VariantPutVariantHandler = variantapi.PutVariantHandlerFunc(withStore(h, h.PutVariant))
	api.VariantDeleteVariantHandler = variantapi.DeleteVariantHandlerFunc(withStore(h, h.DeleteVariant))

	api.SegmentFindSegmentsHandler = segmentapi.FindSegmentsHandlerFunc(withStore(h, h.FindSegments))
	api.SegmentCreateSegmentHandler = segmentapi.CreateSegmentHandlerFunc(withStore(h, h.CreateSegment))
	api.SegmentPutSegmentHandler = segmentapi.PutSegmentHandlerFunc(withStore(h, h.PutSegment))
	api.SegmentPutSegmentsReorderHandler = segmentapi.PutSegmentsReorderHandlerFunc(withStore(h, h.PutSegmentsReorder))
	api.SegmentDeleteSegmentHandler = segmentapi.DeleteSegmentHandlerFunc(withStore(h, h.DeleteSegment))

	api.ConstraintFindConstraintsHandler = constraintapi.FindConstraintsHandlerFunc(withStore(h, h.FindConstraints))
	api.ConstraintCreateConstraintHandler = constraintapi.CreateConstraintHandlerFunc(withStore(h, h.CreateConstraint))
	api.ConstraintPutConstraintHandler = constraintapi.PutConstraintHandlerFunc(withStore(h, h.PutConstraint))
	api.ConstraintDeleteConstraintHandler = constraintapi.DeleteConstraintHandlerFunc(withStore(h, h.DeleteConstraint))

	api.DistributionFindDistributionsHandler = distributionapi.FindDistributionsHandlerFunc(withStore(h, h.FindDistributions))
	api.DistributionPutDistributionsHandler = distributionapi.PutDistributionsHandlerFunc(withStore(h, h.PutDistributions))
}

// withStore responds with an error to operations that need a database if there is no database.
func withStore[P any](h *Handler, operation func(P) middleware.Responder) func(P) middleware.Responder {
	if h.store != nil {
		return operation
	}
	return func(P) middleware.Responder {
		return reply(http.StatusNotImplemented, "not implemented in eval-only mode: this server evaluates flags and serves "+
			"nothing else (FLAGR_EVAL_ONLY_MODE, or flags from a JSON document)")
	}
}
