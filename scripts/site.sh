#!/usr/bin/env bash
# The pages of .github/workflows/pages.yml in the folder $1: the reports and the executed notebooks of mini, and a list of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
site=${1:?the folder to write}
mkdir -p "$site/notebooks"
for profile in small mini; do
    mkdir -p "$site/$profile"
    cp "figures/$profile/report.html" "figures/$profile/hero.png" "$site/$profile/"
done
cp artifacts/mini/html/*.html "$site/notebooks/"
{
    echo '<!doctype html><html lang="en"><meta charset="utf-8"><title>Explaining their own computations</title>'
    echo '<h1>Explaining their own computations, in notebooks</h1><ul>'
    for profile in small mini; do echo "<li><a href=\"$profile/report.html\">Report of $profile</a>"; done
    for page in "$site"/notebooks/*.html; do
        name=$(basename "$page" .html)
        echo "<li><a href=\"notebooks/$name.html\">$name</a>"
    done
    echo '</ul></html>'
} >"$site/index.html"
