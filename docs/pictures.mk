# Every picture of docs/pictures has its command here, from the root of the repository:
#
#   make -f docs/pictures.mk -B docs/pictures/overlay.jpg
#
# Solar cells: elpv-dataset (CC BY-NC-SA 4.0), and so are their pictures. Those of Chromium need it.

PYTHON ?= .venv/bin/python
HVQ_EDGE ?= .venv/bin/hvq-edge
CELLS ?= $(HOME)/.cache/hvq-edge/solar-cells
DEMO ?= runs/demo
MADE ?= runs/pictures

P := docs/pictures

.PHONY: all
all: $(wildcard $(P)/*)

$(DEMO)/run.json:
	$(HVQ_EDGE) demo --out $(DEMO)

$(P)/overlay.jpg $(P)/predict.jpg $(P)/explain.jpg &: | $(DEMO)/run.json
	$(PYTHON) -m benchmarks.overlay_image $(DEMO) $(CELLS) $(P)

$(P)/review.jpg $(P)/shift-report.jpg $(P)/alike.jpg $(P)/explain-click.jpg &: | $(DEMO)/run.json
	$(HVQ_EDGE) export $(DEMO) --int8 --exemplars --out $(MADE)/exemplars
	$(PYTHON) -m benchmarks.review_image $(MADE)/exemplars $(CELLS) $(P)

$(P)/drift.jpg: | $(DEMO)/run.json
	$(PYTHON) -m benchmarks.live_page_image $(DEMO)/bundle $(CELLS)/solar_cell_mono/test $@ --darker 0.25

$(P)/live-page.png:
	$(PYTHON) examples/rendered_washers.py $(MADE)/washers --train 80
	$(HVQ_EDGE) train --data $(MADE)/washers --preset tiny --out $(MADE)/washer-run
	$(HVQ_EDGE) export $(MADE)/washer-run
	$(HVQ_EDGE) eval $(MADE)/washer-run/bundle
	$(PYTHON) -m benchmarks.live_page_image $(MADE)/washer-run/bundle $(MADE)/washers/washer/test $@

# A week of a line: Monday's bundle and Wednesday's, which learnt cells of another make; and Friday's, which has the
# polycrystalline ones as well.
WEEK := $(MADE)/week

$(WEEK)/runs/two/bundle/bundle.json:
	$(PYTHON) -m benchmarks.a_week $(WEEK)

$(P)/learn.jpg: | $(WEEK)/runs/two/bundle/bundle.json
	$(PYTHON) -m benchmarks.learning_image $(WEEK)/runs/monday/bundle $(WEEK)/runs/monday/bundle-learnt \
		$(addprefix $(WEEK)/line/,tuesday/001-cell2150.png tuesday/002-cell2160.png monday/007-cell0942.png \
		monday/004-cell0022-broken.png) $@

$(P)/new-category.jpg: | $(WEEK)/runs/two/bundle/bundle.json
	$(PYTHON) -m benchmarks.learning_image $(WEEK)/runs/monday/bundle-learnt $(WEEK)/runs/two/bundle \
		$(WEEK)/line/friday/007-cell0650.png $(CELLS)/solar_cell_poly/test/defective/cell0255.png \
		$(WEEK)/line/friday/023-cell2214.png $(WEEK)/line/friday/046-cell1389-broken.png $@

$(P)/tiles.jpg:
	$(PYTHON) -m benchmarks.accuracy.tiles $(CELLS) --kinds solar_cell_mono --out $(MADE)/tiles
	$(PYTHON) -m benchmarks.tiles_image $(CELLS)/solar_cell_mono $(MADE)/tiles/solar_cell_mono $@

$(P)/robustness.svg: | $(DEMO)/run.json
	$(PYTHON) -m benchmarks.accuracy.robustness $(DEMO)/bundle $(CELLS) --precision int8 --svg $@
