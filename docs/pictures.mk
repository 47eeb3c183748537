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
# For learn.jpg: a bundle, the one that `hvq-edge learn` made of it, and the cells to show.
BEFORE ?= runs/seven/bundle
AFTER ?= runs/seven/bundle-learnt
SHOWN ?= $(wildcard $(MADE)/shown/*)

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

$(P)/learn.jpg:
	$(PYTHON) -m benchmarks.learning_image $(BEFORE) $(AFTER) $(SHOWN) $@

# Wednesday's bundle and Friday's of a week of a line, with cells of Friday.
$(P)/new-category.jpg:
	$(PYTHON) -m benchmarks.a_week $(MADE)/week
	$(PYTHON) -m benchmarks.learning_image $(MADE)/week/runs/monday/bundle-learnt \
		$(MADE)/week/runs/two/bundle $(SHOWN) $@

$(P)/tiles.jpg:
	$(PYTHON) -m benchmarks.accuracy.tiles $(CELLS) --kinds solar_cell_mono --out $(MADE)/tiles
	$(PYTHON) -m benchmarks.tiles_image $(CELLS)/solar_cell_mono $(MADE)/tiles/solar_cell_mono $@

$(P)/robustness.svg: | $(DEMO)/run.json
	$(PYTHON) -m benchmarks.accuracy.robustness $(DEMO)/bundle $(CELLS) --precision int8 --svg $@
